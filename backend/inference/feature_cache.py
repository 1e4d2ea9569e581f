"""Cache features of images in memory and, on request, on disk; both bounded in bytes."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from cachetools import LRUCache
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from backend.settings import Settings
from clearclip_core import WindowFeatures

log = logging.getLogger(__name__)

#: Share of its limit to which a full folder shrinks, so that not every new file makes it shrink.
_SHRINK_TO = 0.9

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),  # version 2
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),  # version 1
)


class CacheUse(Struct, frozen=True):
    """Counts of a cache since its start, and its present contents."""

    hits: int
    misses: int
    entries: int
    bytes: int
    limit_bytes: int


class FeatureCache:
    """Keeps features of windows by key; evicts the least recently used.

    Features are kept as float16 tensors on the CPU. They are unit vectors, whose label maps differ
    from those in float32 in one pixel of thousands. The geometry is not kept: it comes with the
    image of each request. Safe to share between threads.

    Args:
        limit_bytes: most bytes of all tensors in memory; 0 keeps none.
        disk: a folder in which features outlive the process; None for none.

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
        """Return the cache that settings describe.

        Raises:
            ValueError: the cache is larger than this machine's memory, or its folder cannot be
                made.
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
        """Return features in float16 on the CPU, if they are in memory; else None."""
        with self._lock:
            features = self._memory.get(key)
            self._hits += features is not None
            self._misses += features is None
            return features

    def __contains__(self, key: str) -> bool:
        """Return whether features are in memory; this counts as no use of them."""
        with self._lock:
            return key in self._memory

    def put(self, key: str, features: WindowFeatures) -> None:
        """Keep features in memory, unless they are larger than the whole cache."""
        half = features.to("cpu", torch.float16)
        if _bytes_of(half) <= self._memory.maxsize:
            with self._lock:
                self._memory[key] = half

    def load(self, key: str) -> None:
        """Load features from disk into memory, unless they are in memory already."""
        if self._disk is not None and key not in self:
            features = self._disk.read(key)
            if features is not None:
                self.put(key, features)

    def save(self, key: str) -> None:
        """Save features from memory to disk, unless they are on disk already."""
        if self._disk is not None:
            with self._lock:
                features = self._memory.get(key)
            if features is not None:
                self._disk.write(key, features)

    @property
    def use(self) -> CacheUse:
        """Counts since the start, and the present contents of the memory."""
        with self._lock:
            memory = self._memory
            return CacheUse(
                self._hits, self._misses, len(memory), int(memory.currsize), int(memory.maxsize)
            )


class FeatureFolder:
    """Keeps features in one safetensors file an image; evicts the least recently used files.

    A file that is damaged, or has another key than its name says, is removed when it is read. An
    error of the disk never costs more than the file.

    Args:
        folder: path of the folder, which is made if it is missing.
        limit_bytes: most bytes of all files together.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        for unfinished in folder.glob("*.tmp"):  # of a process that was killed while it wrote
            unfinished.unlink(missing_ok=True)
        self._bytes = sum(size for _, size, _ in self._files())
        self._shrink()

    def read(self, key: str) -> WindowFeatures | None:
        """Return features in float16; None if there is no file, or a damaged one."""
        path = self._path(key)
        try:
            features = _read(path, key)
            os.utime(path)  # the time of last use, by which files are evicted
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError) as error:
            log.warning("%s is not used, and removed: %s", path, error)
            self._remove(path)
            return None
        return features

    def write(self, key: str, features: WindowFeatures) -> None:
        """Write features atomically, unless their file exists; log an error of the disk."""
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
        """Yield the time of last use in ns, the size in bytes, and the path of each file."""
        for path in self._folder.glob("*.safetensors"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process has removed it
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
    """Return the bytes of memory of this machine, or of its container if that has less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [path.read_text().strip() for path in _CGROUP_LIMITS if path.is_file()]
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])


def _tensors(features: WindowFeatures) -> dict[str, torch.Tensor]:
    """Return contiguous tensors by their names in files, without those that are None."""
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
    """Read the features in a file."""
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
        raise ValueError("its checksum or its key does not match")
    return features
