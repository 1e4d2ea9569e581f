"""Features that are kept: bounded, the same when they come back, and gone where they are wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from backend.inference import feature_cache as features
from backend.inference.feature_cache import FeatureCache, FeatureFolder, machine_memory_bytes
from backend.settings import Settings
from clearclip_core import (
    WindowFeatures,
)

KB = 1024


def windows(seed: int = 0, kilobytes: int = 1) -> WindowFeatures:
    generator = torch.Generator().manual_seed(seed)
    return WindowFeatures(
        torch.rand(1, 2, kilobytes, 256, generator=generator).half()  # 1 kB each
    )


def with_cls(seed: int = 0) -> WindowFeatures:
    """As a method has them that weighs classes: 1 kB and 512 bytes."""
    generator = torch.Generator().manual_seed(seed)
    return windows(seed)._replace(cls=torch.rand(1, 256, generator=generator).half())


def same(one: WindowFeatures | None, other: WindowFeatures) -> bool:
    if one is None or (one.cls is None) != (other.cls is None):
        return False
    pairs = zip(one, other, strict=True)
    return all(a is None or (b is not None and torch.equal(a, b)) for a, b in pairs)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_what_was_put_comes_back_in_half_precision() -> None:
    cache = FeatureCache(10 * KB)
    cache.put("a", windows().to("cpu", torch.float32))
    cache.put("b", with_cls().to("cpu", torch.float32))
    assert same(cache.get("a"), windows())
    assert same(cache.get("b"), with_cls())
    assert cache.use.bytes == 2 * KB + 512
    assert cache.get("c") is None
    assert (cache.use.hits, cache.use.misses) == (2, 1)


def test_the_limit_is_of_bytes_and_the_longest_unused_goes_first() -> None:
    cache = FeatureCache(4 * KB)
    for number in range(4):
        cache.put(str(number), windows(number))
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


def test_another_process_finds_them_on_disk_and_their_bytes_are_checked(tmp_path: Path) -> None:
    first = FeatureCache(9 * KB, FeatureFolder(tmp_path, 99 * KB))
    first.put("a", with_cls())
    first.save("a")
    first.save("never put")
    (path,) = files(tmp_path)
    second = FeatureCache(9 * KB, FeatureFolder(tmp_path, 99 * KB))
    assert second.get("a") is None  # only `load` looks there
    second.load("a")
    second.load("never put")
    assert same(second.get("a"), with_cls())
    tensors = load_file(path)
    assert torch.equal(tensors["patches"], with_cls().patches)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(tensors | {"cls": tensors["cls"].flip(1)}, path, metadata)
    assert FeatureFolder(tmp_path, 99 * KB).read("a") is None


def test_the_folder_stays_under_its_limit_and_the_longest_unused_go_first(tmp_path: Path) -> None:
    folder = FeatureFolder(tmp_path, 10 * KB)  # a file is 1 kB and some metadata
    for number in range(7):
        folder.write(str(number), windows(number))
        os.utime(folder._path(str(number)), (number, number))
    assert folder.read("0") is not None  # used now
    for number in range(7, 12):
        folder.write(str(number), windows(number))
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 10 * KB
    kept = [number for number in range(12) if folder.read(str(number)) is not None]
    assert 0 in kept
    assert 11 in kept
    assert 1 not in kept


@pytest.mark.parametrize("damage", ["truncated", "flipped", "garbage", "empty", "alien", "other"])
def test_a_damaged_file_is_not_used_and_removed(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = FeatureFolder(tmp_path, 99 * KB)
    folder.write("a", windows())
    path = folder._path("a")
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:-100])
    elif damage == "flipped":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "garbage":
        path.write_bytes(b"\x80\x04." * 400)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "alien":
        save_file({"weights": torch.ones(3)}, path)
    else:
        folder.write("b", windows(1))
        folder._path("b").replace(path)
    assert folder.read("a") is None
    assert not path.exists()
    assert "is not used, and removed" in caplog.text
    folder.write("a", windows())
    assert same(folder.read("a"), windows())


def test_what_a_killed_process_left_is_swept_and_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "half.tmp").write_bytes(b"x")
    (tmp_path / "notes.txt").write_bytes(b"x" * 99 * KB)
    FeatureFolder(tmp_path, KB)
    assert files(tmp_path) == [tmp_path / "notes.txt"]


def test_a_disk_that_fails_costs_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = FeatureFolder(tmp_path / "features", 99 * KB)
    (tmp_path / "features").rmdir()
    cache = FeatureCache(9 * KB, folder)
    cache.put("a", windows())
    cache.save("a")
    assert "cannot be kept" in caplog.text
    assert cache.get("a") is not None
    cache.load("b")


def test_a_cache_larger_than_memory_is_refused() -> None:
    too_much = (machine_memory_bytes() >> 20) + 1
    with pytest.raises(ValueError, match=rf"^FEATURE_CACHE_MB: .*, but got {too_much}\.$"):
        FeatureCache.from_settings(Settings(feature_cache_mb=too_much))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("a file")
    settings = Settings(feature_disk_cache_mb=1, model_dir=tmp_path)
    with pytest.raises(ValueError, match=r"^FEATURE_DISK_CACHE_MB: .*features cannot be used"):
        FeatureCache.from_settings(settings)


@pytest.mark.parametrize(("limit", "expected"), [("1048576\n", 1 << 20), ("max\n", None)])
def test_the_limit_of_a_container_counts_as_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int | None
) -> None:
    file = tmp_path / "memory.max"
    file.write_text(limit)
    monkeypatch.setattr(features, "_CGROUP_LIMITS", (tmp_path / "none", file))
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine_memory_bytes() == (expected or machine)
