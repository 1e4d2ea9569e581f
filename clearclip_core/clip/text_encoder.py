"""Words: labels and their prompts, prompt templates, text embeddings."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from cachetools import LRUCache
from open_clip import OPENAI_IMAGENET_TEMPLATES

from clearclip_core.clip.embedding_cache import EmbeddingStore

#: The 80 prompt templates of CLIP's ImageNet evaluation; each turns a word into a sentence.
TEMPLATES: tuple[Callable[[str], str], ...] = tuple(OPENAI_IMAGENET_TEMPLATES)


class TextEncoder:
    """Prompts -> text embeddings, each computed once and kept: in memory, and on disk if asked.

    A prompt's embedding is that of its sentences, one a template: each normalised, averaged,
    normalised again (Sec. 4.1 of the paper).

    May be shared by threads. New prompts are embedded slice by slice (6 prompts in 80 templates),
    and threads take turns slice by slice: a word asked by one does not wait for the thousand of
    another, and what is through stays, even if the rest is never finished.

    Args:
        encode: sentences -> (S, D) float embeddings, not normalised; called by one thread at a
            time.
        templates: each turns a prompt into a sentence.
        batch: how many sentences are encoded at once, at most. On a CPU 64 to 256 are equally
            fast.
        store: where embeddings outlive the process.
        remembered: how many prompts are kept in memory; the longest unused goes first.

    Raises:
        ValueError: `batch` or `remembered` is below 1.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], torch.Tensor],
        templates: Sequence[Callable[[str], str]] = TEMPLATES,
        batch: int = 128,
        store: EmbeddingStore | None = None,
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
        self._prompts_at_once = max(1, 4 * batch // len(self.templates))
        self._store = store
        self._memory: LRUCache[str, torch.Tensor] = LRUCache(remembered)
        self._memory_lock = threading.Lock()
        self._turn = _FairLock()

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embed prompts.

        Args:
            prompts: Q words or phrases.

        Returns:
            (Q, D) float32, each row of length 1, on the CPU.
        """
        rows = self._recalled(prompts)
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in rows]
        for start in range(0, len(new), self._prompts_at_once):
            rows |= self._computed(new[start : start + self._prompts_at_once])
        return torch.stack([rows[prompt] for prompt in prompts])

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """The prompts that are neither in memory nor on disk, each once, in their order.

        Those that are on disk are in memory afterwards.
        """
        rows = self._recalled(prompts)
        return [prompt for prompt in dict.fromkeys(prompts) if prompt not in rows]

    def _recalled(self, prompts: Iterable[str]) -> dict[str, torch.Tensor]:
        """Those of the prompts that need no computing."""
        wanted = dict.fromkeys(prompts)
        with self._memory_lock:
            rows = {prompt: self._memory[prompt] for prompt in wanted if prompt in self._memory}
        if self._store is None:
            return rows
        read = {p: self._store.get(self._sentences(p)) for p in wanted if p not in rows}
        found = {prompt: row for prompt, row in read.items() if row is not None}
        self._remember(found)
        return rows | found

    def _computed(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Embed a slice, but for what another thread or process has done in the meantime."""
        with self._turn:
            rows = self._recalled(prompts)
            new = [prompt for prompt in prompts if prompt not in rows]
            made = dict(zip(new, self._embed(new), strict=True)) if new else {}
            self._remember(made)
        if self._store is not None:
            for prompt, row in made.items():
                self._store.put(self._sentences(prompt), row)
        return rows | made

    def _remember(self, rows: Mapping[str, torch.Tensor]) -> None:
        with self._memory_lock:
            self._memory.update(rows)

    def _sentences(self, prompt: str) -> list[str]:
        return [template(prompt) for template in self.templates]

    def _embed(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Rows of (D,) float32 on the CPU, each in memory of its own."""
        sentences = [sentence for prompt in prompts for sentence in self._sentences(prompt)]
        # Sentences of about one length share a batch: the tower runs to the longest's end.
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i].split()))
        batches = (order[i : i + self._batch] for i in range(0, len(order), self._batch))
        made = torch.cat([self._encode([sentences[i] for i in batch]) for batch in batches])
        each = torch.empty_like(made, dtype=torch.float32)
        each[order] = F.normalize(made.float(), dim=-1)  # (prompts*templates, D), as they were
        mean = each.reshape(len(prompts), len(self.templates), -1).mean(1)  # (prompts, D)
        return [row.clone() for row in F.normalize(mean, dim=-1).cpu()]


class _FairLock:
    """A lock that serves its threads in the order in which they came.

    `threading.Lock` may hand a thread the lock again that it has just let go, for as long as it
    likes.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: deque[object] = deque()

    def __enter__(self) -> None:
        place = object()
        with self._changed:
            self._line.append(place)
            try:
                self._changed.wait_for(lambda: self._line[0] is place)
            except BaseException:  # an interrupt: who waits behind must not wait for ever
                self._line.remove(place)
                self._changed.notify_all()
                raise

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._line.popleft()
            self._changed.notify_all()
