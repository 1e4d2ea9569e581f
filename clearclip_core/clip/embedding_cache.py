"""Cache of text embeddings on disk, shared by processes."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path

import torch
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
