"""Features of pictures, kept: in memory and, on request, on disk; both bounded in bytes."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from cachetools import LRUCache
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from backend.settings import Settings
from clearclip_core import WindowFeatures

log = logging.getLogger(__name__)

#: Once a folder is over its limit, it shrinks to this share of it, so that not every file asks.
_SHRINK_TO = 0.9

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),  # version 2
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),  # version 1
)


@dataclass(frozen=True)
class CacheUse:
    """What a cache did so far, and what it holds now."""

    hits: int
    misses: int
    entries: int
    bytes: int
    limit_bytes: int

    def to_json(self) -> dict[str, int]:
        """The counts as `/status` has them."""
        return {
            "hits": self.hits,
            "misses": self.misses,
            "entries": self.entries,
            "bytes": self.bytes,
            "limit_bytes": self.limit_bytes,
        }


class FeatureCache:
    """Features of windows by key; what has not been used for longest is dropped first.

    Kept are float16 tensors on the CPU: features are unit vectors, whose label maps differ from
    those in float32 in one pixel of thousands. The geometry comes with each request's own picture.
    Safe to share between threads.

    Args:
        limit_bytes: of all tensors in memory; 0 keeps none.
        disk: where they outlive the process, if anywhere.

    >>> cache = FeatureCache(limit_bytes=1024)
    >>> cache.put("a", WindowFeatures(torch.ones(1, 2, 2, 8)))
    >>> cache.get("a").patches.dtype, cache.use.bytes
    (torch.float16, 64)
    """

    def __init__(self, limit_bytes: int, disk: FeatureFolder | None = None) -> None:
        self._memory: LRUCache[str, WindowFeatures] = LRUCache(limit_bytes, _bytes_of)
        self._disk = disk
        self._lock = threading.Lock()
        self._hits = self._misses = 0

    @classmethod
    def from_settings(cls, settings: Settings) -> FeatureCache:
        """The cache that settings describe.

        Raises:
            ValueError: it is larger than this machine's memory, or its folder cannot be made.
        """
        limit_bytes, most_bytes = settings.feature_cache_mb << 20, machine_memory_bytes()
        if limit_bytes > most_bytes:
            raise ValueError(
                f"FEATURE_CACHE_MB: expected at most the memory of this machine or container, "
                f"{most_bytes >> 20}, but got {settings.feature_cache_mb}."
            )
        if not settings.feature_disk_cache_mb:
            return cls(limit_bytes)
        folder, disk_bytes = settings.model_dir / "features", settings.feature_disk_cache_mb << 20
        try:
            return cls(limit_bytes, FeatureFolder(folder, disk_bytes))
        except OSError as error:
            raise ValueError(f"FEATURE_DISK_CACHE_MB: {folder} cannot be used: {error}.") from None

    def get(self, key: str) -> WindowFeatures | None:
        """Features in float16 on the CPU, from memory; None where there are none."""
        with self._lock:
            features = self._memory.get(key)
            self._hits += features is not None
            self._misses += features is None
            return features

    def __contains__(self, key: str) -> bool:
        """Whether they are in memory; counts as no use of them."""
        with self._lock:
            return key in self._memory

    def put(self, key: str, features: WindowFeatures) -> None:
        """Keep features in memory; those that are larger than all of it are not kept."""
        half = features.to("cpu", torch.float16)
        if _bytes_of(half) <= self._memory.maxsize:
            with self._lock:
                self._memory[key] = half

    def load(self, key: str) -> None:
        """Bring features from disk to memory, where they are only on disk."""
        if self._disk is not None and key not in self:
            features = self._disk.read(key)
            if features is not None:
                self.put(key, features)

    def save(self, key: str) -> None:
        """Bring features from memory to disk, where they are only in memory."""
        if self._disk is not None:
            with self._lock:
                features = self._memory.get(key)
            if features is not None:
                self._disk.write(key, features)

    @property
    def use(self) -> CacheUse:
        """Counts since the start, and what is in memory now."""
        with self._lock:
            memory = self._memory
            return CacheUse(
                self._hits, self._misses, len(memory), int(memory.currsize), int(memory.maxsize)
            )


class FeatureFolder:
    """One safetensors file a picture; the oldest by time of use go once they are too many bytes.

    A file that is damaged, or is not what its name says, is removed when it is asked for. Nothing
    that goes wrong on the disk ever costs more than the file.

    Args:
        folder: made where it is missing.
        limit_bytes: of all files together.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        for left in folder.glob("*.tmp"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
        self._bytes = sum(size for _, size, _ in self._files())
        self._shrink()

    def read(self, key: str) -> WindowFeatures | None:
        """Features in float16, or None."""
        path = self._path(key)
        try:
            features = _read(path, key)
            os.utime(path)  # by which the oldest are told
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError) as error:
            log.warning("%s is not used, and removed: %s", path, error)
            self._remove(path)
            return None
        return features

    def write(self, key: str, features: WindowFeatures) -> None:
        """Write a file, unless it is there; whole or not at all."""
        path = self._path(key)
        if path.exists():
            return
        try:
            handle, name = tempfile.mkstemp(dir=self._folder, suffix=".tmp")
            os.close(handle)
            written = Path(name)
            try:
                save_file(_tensors(features), written, _metadata(key, features))
                size = written.stat().st_size
                written.replace(path)
            finally:
                written.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            log.warning("Features cannot be kept in %s: %s", self._folder, error)
            return
        with self._lock:
            self._bytes += size
            self._shrink()

    def _path(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """Time of last use, size, and path of each file."""
        for path in self._folder.glob("*.safetensors"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process took it away
                continue
            yield stat.st_mtime_ns, stat.st_size, path

    def _shrink(self) -> None:
        if self._bytes <= self._limit_bytes:
            return
        files = sorted(self._files())
        self._bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._bytes <= self._limit_bytes * _SHRINK_TO:
                return
            path.unlink(missing_ok=True)
            self._bytes -= size

    def _remove(self, path: Path) -> None:
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError as error:
            log.warning("%s cannot be removed: %s", path, error)
            return
        with self._lock:
            self._bytes -= size


def machine_memory_bytes() -> int:
    """Memory of this machine, or of its container where that has less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [path.read_text().strip() for path in _CGROUP_LIMITS if path.is_file()]
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])


def _tensors(features: WindowFeatures) -> dict[str, torch.Tensor]:
    """By their names in files, contiguous; without those that are None."""
    named = {"patches": features.patches, "cls": features.cls}
    return {name: tensor.contiguous() for name, tensor in named.items() if tensor is not None}


def _bytes_of(features: WindowFeatures) -> int:
    return sum(part.nbytes for part in features if part is not None)


def _metadata(key: str, features: WindowFeatures) -> dict[str, str]:
    checksum = 0
    for tensor in _tensors(features).values():
        checksum = zlib.crc32(tensor.numpy().tobytes(), checksum)
    return {"key": key, "crc32": str(checksum)}


def _read(path: Path, key: str) -> WindowFeatures:
    """The features in a file.

    Raises:
        ValueError: they are not what was written under that key.
    """
    with safe_open(path, "pt") as file:
        if set(file.keys()) not in ({"patches"}, {"patches", "cls"}):
            raise ValueError("it does not hold features")
        cls = file.get_tensor("cls") if "cls" in file.keys() else None  # noqa: SIM118 -- no dict
        features = WindowFeatures(file.get_tensor("patches"), cls)
        metadata = file.metadata() or {}
    dtypes = {tensor.dtype for tensor in _tensors(features).values()}
    if dtypes != {torch.float16} or features.patches.ndim != 4:
        raise ValueError("it does not hold float16 patches (windows, h, w, D)")
    if metadata != _metadata(key, features):
        raise ValueError("its content or its key is another one")
    return features
