"""Text encoder: prompts in templates to text embeddings, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from cachetools import LRUCache
from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from clearclip_core.clip.loading import LoadedModel
from clearclip_core.clip.weights import ModelName

log = logging.getLogger(__name__)

_KEY = "embedding"

#: Part of every file's name, to be changed when sentences are averaged in another way.
_VERSION = 1


class EmbeddingStore:
    """A folder of text embeddings, with one small safetensors file for each prompt.

    A file's name is a hash of the weights and of the averaged sentences, so that other models and
    other templates have other files. Files are written under another name and renamed, and never
    change, so processes share a folder without locks. A damaged file counts as missing and is
    replaced. If the folder cannot be written, one warning is logged, and its files are still read.

    Args:
        folder: folder of the files; created when the first is written.
        weights: identifier of the weights in their precision, see `text_tower_id`.

    >>> import tempfile
    >>> store = EmbeddingStore(Path(tempfile.mkdtemp()), weights="abc")
    >>> store.put(["a photo of a dog."], torch.tensor([0.6, 0.8]))
    >>> store.get(["a photo of a dog."])
    tensor([0.6000, 0.8000])
    >>> store.get(["a photo of a cat."]) is None
    True
    """

    def __init__(self, folder: Path, weights: str) -> None:
        self._folder = folder
        self._weights = weights
        self._writable = True
        self._lock = threading.Lock()

    @classmethod
    def of(cls, model: LoadedModel, folder: Path | None) -> EmbeddingStore | None:
        """Build the store of a model in ``folder/embeddings``.

        Returns:
            None without a folder, and for random weights, which no other process shares.
        """
        if folder is None or ModelName.parse(model.name).kind == "random":
            return None
        return cls(folder / "embeddings", text_tower_id(model))

    def get(self, sentences: Sequence[str]) -> torch.Tensor | None:
        """Read the embedding of a prompt's sentences, bit for bit as it was put.

        Returns:
            (D,) float32 on the CPU; None if it is missing or damaged.
        """
        try:
            with safe_open(self._path(sentences), "pt") as file:
                embedding: torch.Tensor = file.get_tensor(_KEY)
                whole = (file.metadata() or {}).get("sha256") == _sha256(embedding)
        except (OSError, SafetensorError):
            return None
        return embedding if whole else None

    def put(self, sentences: Sequence[str], embedding: torch.Tensor) -> None:
        """Write the embedding of a prompt's sentences; a failed write is logged, not raised.

        Args:
            embedding: (D,) float32.
        """
        with self._lock:
            if not self._writable:
                return
            try:
                self._write(self._path(sentences), embedding.contiguous().cpu(), sentences[0])
            except OSError as error:
                self._writable = False
                log.warning("Text embeddings are not kept on disk: %s", error)

    def _path(self, sentences: Sequence[str]) -> Path:
        key = json.dumps([_VERSION, self._weights, *sentences])
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"

    def _write(self, path: Path, embedding: torch.Tensor, example: str) -> None:
        facts = {"sha256": _sha256(embedding), "weights": self._weights, "example": example}
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{uuid.uuid4().hex}.part")
        try:
            part.write_bytes(save({_KEY: embedding}, metadata=facts))
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def text_tower_id(model: LoadedModel) -> str:
    """Compute the hex digest of a model's text tower, in its precision, and of its tokenizer.

    It covers every number, because the file behind a model's name may change.
    """
    digest = hashlib.sha256(json.dumps(model.tokenize(["A photo of a café."]).tolist()).encode())
    for name, tensor in model.clip.state_dict().items():
        if not name.startswith("visual."):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _sha256(tensor: torch.Tensor) -> str:
    return hashlib.sha256(_bytes(tensor)).hexdigest()


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


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


#: Turns a word into a sentence.
Template = Callable[[str], str]

#: The 80 prompt templates of CLIP's ImageNet evaluation.
TEMPLATES: tuple[Template, ...] = tuple(OPENAI_IMAGENET_TEMPLATES)

#: The 7 best of them, eleven times cheaper. CLIP's authors chose them by sequential forward
#: selection: on ImageNet these 7 were a bit better than all 80, above all for small models
#: (github.com/openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb).
BEST_TEMPLATES: tuple[Template, ...] = tuple(SIMPLE_IMAGENET_TEMPLATES)


class TextEncoder:
    """Embed prompts; embeddings are cached in memory, and on disk with a store.

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
        self._store = store
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
        """Return the prompts that are neither in memory nor on disk, each once, in their order.

        Embeddings on disk are read into memory.
        """
        rows = self._look_up(prompts)
        return [prompt for prompt in dict.fromkeys(prompts) if prompt not in rows]

    def _look_up(self, prompts: Iterable[str]) -> dict[str, torch.Tensor]:
        """Look up the embeddings of prompts in memory and on disk."""
        wanted = dict.fromkeys(prompts)
        with self._memory_lock:
            rows = {prompt: self._memory[prompt] for prompt in wanted if prompt in self._memory}
        if self._store is None:
            return rows
        read = {p: self._store.get(self._sentences(p)) for p in wanted if p not in rows}
        found = {prompt: row for prompt, row in read.items() if row is not None}
        self._remember(found)
        return rows | found

    def _compute(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Embed a slice, except for prompts that another thread or process has embedded since."""
        with self._encode_lock:
            rows = self._look_up(prompts)
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
