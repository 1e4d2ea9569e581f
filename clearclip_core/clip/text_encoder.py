"""Text encoder: prompts in templates to text embeddings, computed once a process."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from cachetools import LRUCache
from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES


class FairLock:
    """A lock that is first come, first served.

    A thread that releases a `threading.Lock` may get it again at once, any number of times, while
    other threads wait.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    def __enter__(self) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                self._changed.wait_for(lambda: self._queue[0] is ticket)
            except BaseException:  # an interrupt: the threads behind must not wait for ever
                self._queue.remove(ticket)
                self._changed.notify_all()
                raise

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._queue.popleft()
            self._changed.notify_all()


Template = Callable[[str], str]  # turns a word into a sentence

#: The 80 prompt templates of CLIP's ImageNet evaluation.
TEMPLATES: tuple[Template, ...] = tuple(OPENAI_IMAGENET_TEMPLATES)

#: The 7 best of them, eleven times cheaper. CLIP's authors chose them by sequential forward
#: selection: on ImageNet these 7 were a bit better than all 80, above all for small models
#: (github.com/openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb).
BEST_TEMPLATES: tuple[Template, ...] = tuple(SIMPLE_IMAGENET_TEMPLATES)


class TextEncoder:
    """Embed prompts; embeddings are cached in memory.

    A prompt is put into each template. The embeddings of these sentences are normalised, averaged
    and normalised again (Sec. 4.1 of the paper).

    A text encoder may be shared by threads. New prompts are embedded in slices (of 6 prompts with
    80 templates), and threads alternate after each slice. So one prompt does not wait until
    another thread has embedded a thousand, and a finished slice stays cached if a later one fails.

    Args:
        encode: sentences -> (S, D) float embeddings, not normalised; called by one thread at a
            time.
        templates: each turns a prompt into a sentence.
        batch: sentences that are encoded at once, at most.
        remembered: prompts whose embeddings are kept in memory; the least recently used is
            dropped first.

    Raises:
        ValueError: `batch` or `remembered` is below 1.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], torch.Tensor],
        templates: Sequence[Template] = TEMPLATES,
        batch: int = 128,
        remembered: int = 50_000,
    ) -> None:
        if batch < 1 or remembered < 1:
            raise ValueError(
                "Expected arguments `batch` and `remembered` to be 1 or more, but got "
                f"{batch} and {remembered}."
            )
        self._encode = encode
        self.templates = tuple(templates)
        self._batch = batch
        self._memory: LRUCache[str, torch.Tensor] = LRUCache(remembered)
        self._memory_lock = threading.Lock()
        self._encode_lock = FairLock()

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embed prompts: (Q, D) float32, each row of length 1, on the CPU."""
        rows = self._look_up(prompts)
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in rows]
        at_once = max(1, 4 * self._batch // len(self.templates))
        for start in range(0, len(new), at_once):
            rows |= self._compute(new[start : start + at_once])
        return torch.stack([rows[prompt] for prompt in prompts])

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """Return the prompts that are not in memory, each once, in their order."""
        rows = self._look_up(prompts)
        return [prompt for prompt in dict.fromkeys(prompts) if prompt not in rows]

    def _look_up(self, prompts: Iterable[str]) -> dict[str, torch.Tensor]:
        wanted = dict.fromkeys(prompts)
        with self._memory_lock:
            return {prompt: self._memory[prompt] for prompt in wanted if prompt in self._memory}

    def _compute(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Embed a slice, except for prompts that another thread has embedded since."""
        with self._encode_lock:
            rows = self._look_up(prompts)
            new = [prompt for prompt in prompts if prompt not in rows]
            made = dict(zip(new, self._embed(new), strict=True)) if new else {}
            self._remember(made)
        return rows | made

    def _remember(self, rows: Mapping[str, torch.Tensor]) -> None:
        with self._memory_lock:
            self._memory.update(rows)

    def _sentences(self, prompt: str) -> list[str]:
        return [template(prompt) for template in self.templates]

    def _embed(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Compute (D,) float32 embeddings on the CPU that share no memory."""
        sentences = [sentence for prompt in prompts for sentence in self._sentences(prompt)]
        # Sentences of similar length share a batch: the tower runs up to the longest one's end.
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i].split()))
        batches = (order[i : i + self._batch] for i in range(0, len(order), self._batch))
        made = torch.cat([self._encode([sentences[i] for i in batch]) for batch in batches])
        each = torch.empty_like(made, dtype=torch.float32)
        each[order] = F.normalize(made.float(), dim=-1)  # (prompts*templates, D), as they were
        mean = each.reshape(len(prompts), len(self.templates), -1).mean(1)  # (prompts, D)
        return [row.clone() for row in F.normalize(mean, dim=-1).cpu()]
