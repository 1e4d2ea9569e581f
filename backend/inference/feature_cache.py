"""Cache features of images in memory, bounded in bytes."""

import os
import threading
from pathlib import Path

import torch
from cachetools import LRUCache
from msgspec import Struct

from backend.settings import Settings
from clearclip_core import ClickFeatures, WindowFeatures

#: What is cached of an image: what words are compared with, or what a click model has seen.
Cached = WindowFeatures | ClickFeatures

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
    """Keeps features of images by key; evicts the least recently used.

    Features are kept as float16 tensors on the CPU. Those of windows are unit vectors, whose label
    maps differ from those in float32 in one pixel of thousands. The geometry is not kept: it comes
    with the image of each request. Safe to share between threads.

    Args:
        limit_bytes: most bytes of all tensors in memory; 0 keeps none.

    >>> cache = FeatureCache(limit_bytes=1024)
    >>> cache.put("a", WindowFeatures(torch.ones(1, 2, 2, 8)))
    >>> cache.get("a").patches.dtype, cache.use.bytes
    (torch.float16, 64)
    """

    def __init__(self, limit_bytes: int) -> None:
        self._memory: LRUCache[str, Cached] = LRUCache(limit_bytes, _bytes_of)
        self._lock = threading.Lock()
        self._hits = self._misses = 0

    @classmethod
    def from_settings(cls, settings: Settings) -> "FeatureCache":
        """Return the cache that settings describe; raises `ValueError` where memory has no room."""
        limit_bytes, most_bytes = settings.feature_cache_mb << 20, machine_memory_bytes()
        if limit_bytes > most_bytes:
            raise ValueError(
                f"FEATURE_CACHE_MB: expected at most the memory of this machine or container, "
                f"{most_bytes >> 20}, but got {settings.feature_cache_mb}."
            )
        return cls(limit_bytes)

    def get(self, key: str) -> Cached | None:
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

    def put(self, key: str, features: Cached) -> None:
        """Keep features in memory, unless they are larger than the whole cache."""
        half = features.to("cpu", torch.float16)
        if _bytes_of(half) <= self._memory.maxsize:
            with self._lock:
                self._memory[key] = half

    @property
    def use(self) -> CacheUse:
        """Counts since the start, and the present contents of the memory."""
        with self._lock:
            memory = self._memory
            return CacheUse(
                self._hits, self._misses, len(memory), int(memory.currsize), int(memory.maxsize)
            )


def machine_memory_bytes() -> int:
    """Return the bytes of memory of this machine, or of its container if that has less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [path.read_text().strip() for path in _CGROUP_LIMITS if path.is_file()]
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])


def _bytes_of(features: Cached) -> int:
    return sum(part.nbytes for part in features if part is not None)
