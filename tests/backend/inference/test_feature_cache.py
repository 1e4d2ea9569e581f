"""Features that are kept: bounded, and the same when they come back."""

import os
from pathlib import Path

import pytest
import torch

from backend.inference import feature_cache as features
from backend.inference.feature_cache import FeatureCache, machine_memory_bytes
from clearclip_core import WindowFeatures

KB = 1024


def windows(kilobytes: int = 1) -> WindowFeatures:
    return WindowFeatures(torch.rand(1, 2, kilobytes, 256).half())  # 1 kB each


def test_what_was_put_comes_back_in_half_precision() -> None:
    cache, cls = FeatureCache(10 * KB), torch.rand(1, 256)
    plain, with_cls = windows(), windows()._replace(cls=cls)
    cache.put("a", plain.to("cpu", torch.float32))
    cache.put("b", with_cls)
    a, b = cache.get("a"), cache.get("b")
    assert a is not None
    assert b is not None
    assert b.cls is not None
    assert torch.equal(a.patches, plain.patches)
    assert a.cls is None
    assert torch.equal(b.cls, cls.half())
    assert cache.use.bytes == 2 * KB + 512
    assert cache.get("c") is None
    assert (cache.use.hits, cache.use.misses) == (2, 1)


def test_the_limit_is_of_bytes_and_the_longest_unused_goes_first() -> None:
    cache = FeatureCache(4 * KB)
    for number in range(4):
        cache.put(str(number), windows())
    cache.get("0")
    cache.put("large", windows(kilobytes=2))
    assert [key for key in ("0", "1", "2", "3", "large") if key in cache] == ["0", "3", "large"]
    assert (cache.use.bytes, cache.use.limit_bytes, cache.use.entries) == (4 * KB, 4 * KB, 3)


def test_what_is_larger_than_the_cache_throws_nothing_out() -> None:
    cache = FeatureCache(2 * KB)
    cache.put("a", windows())
    cache.put("huge", windows(kilobytes=3))
    assert "a" in cache
    assert "huge" not in cache
    none = FeatureCache(0)
    none.put("a", windows())
    assert none.get("a") is None


@pytest.mark.parametrize(("limit", "expected"), [("1048576\n", 1 << 20), ("max\n", None)])
def test_the_limit_of_a_container_counts_as_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int | None
) -> None:
    file = tmp_path / "memory.max"
    file.write_text(limit)
    monkeypatch.setattr(features, "_CGROUP_LIMITS", (tmp_path / "none", file))
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine_memory_bytes() == (expected or machine)
