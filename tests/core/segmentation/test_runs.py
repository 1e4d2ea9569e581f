"""Masks as runs of pixels."""

from collections.abc import Iterator

import numpy as np
import pytest

from clearclip_core import BoolMask, RunMask
from clearclip_core.segmentation import runs as runs_module


def drawn_by_chance() -> Iterator[BoolMask]:
    """Masks of up to 12 px a side, from empty ones to full ones."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(1, 13, 2)
        yield rng.random((height, width)) < rng.choice([0.0, 0.05, 0.5, 0.9, 1.0])


@pytest.fixture(params=[1 << 18, 7], ids=["one band", "bands of a row or two"])
def bands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "_BAND_PX", request.param)


@pytest.mark.usefixtures("bands")
def test_runs_are_drawn_as_the_mask_they_are_of() -> None:
    for mask in drawn_by_chance():
        runs = RunMask.of(mask)
        assert np.array_equal(runs.to_mask(), mask)
        assert runs.to_mask().dtype == np.bool_
        assert runs.area == np.count_nonzero(mask)
        values = np.random.default_rng(mask.size).random(mask.shape).astype(np.float16)
        assert runs.mean(values) == mean_in(mask, values)


def test_runs_go_on_in_the_next_row_and_never_touch() -> None:
    mask = np.array([[0, 0, 1], [1, 1, 1], [1, 0, 1]], np.bool_)
    runs = RunMask.of(mask)
    assert runs.starts.tolist() == [2, 8]
    assert runs.ends.tolist() == [7, 9]
    assert runs.size_hw == (3, 3)


@pytest.mark.parametrize(
    ("rows", "box"),
    [
        (["....", "...."], np.s_[0:0, 0:0]),
        (["....", ".##.", ".#.."], np.s_[1:3, 1:3]),
        (["...#", "#..."], np.s_[0:2, 0:4]),
        (["..##", "...."], np.s_[0:1, 2:4]),
    ],
)
def test_the_box_holds_all_pixels(rows: list[str], box: tuple[slice, slice]) -> None:
    mask = np.array([[pixel == "#" for pixel in row] for row in rows])
    assert RunMask.of(mask).box == box


def mean_in(mask: BoolMask, confidence: np.ndarray) -> object:
    expected = confidence[mask].mean(dtype=np.float64) if mask.any() else 0.0
    return pytest.approx(expected, rel=1e-12)
