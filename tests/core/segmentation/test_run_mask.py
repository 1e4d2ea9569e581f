"""Masks as runs, against the same in whole arrays of pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from clearclip_core import BoolMask, RunMask
from clearclip_core.segmentation import runs


@pytest.fixture(params=[1 << 18, 7], autouse=True, ids=["one band", "bands of a row or two"])
def _bands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_BAND_PX", request.param)


def drawn_by_chance() -> Iterator[BoolMask]:
    """Masks of up to 12 px a side, from empty ones to full ones."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(1, 13, 2)
        yield rng.random((height, width)) < rng.choice([0.0, 0.05, 0.5, 0.9, 1.0])


def test_runs_are_drawn_as_the_mask_they_are_of() -> None:
    for mask in drawn_by_chance():
        runs = RunMask.of(mask)
        assert np.array_equal(runs.to_mask(), mask)
        assert runs.to_mask().dtype == np.bool_
        assert runs.area == np.count_nonzero(mask)


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


def test_the_mean_is_of_the_pixels_alone() -> None:
    for mask in drawn_by_chance():
        values = np.random.default_rng(mask.size).random(mask.shape).astype(np.float16)
        expected = values[mask].astype(np.float64).mean() if mask.any() else 0.0
        assert RunMask.of(mask).mean(values) == pytest.approx(expected, rel=1e-12)


def test_unions_and_common_pixels_are_those_of_the_arrays() -> None:
    rng = np.random.default_rng(0)
    for one in drawn_by_chance():
        other, third = (rng.random(one.shape) < share for share in (0.2, 0.6))
        runs = [RunMask.of(mask) for mask in (one, other, third)]
        union = RunMask.union(runs, runs[0].size_hw)
        for made, expected in (
            (union, one | other | third),
            (runs[0].common(runs[1]), one & other),
            (runs[2].common(union), third),
        ):
            assert np.array_equal(made.to_mask(), expected)
            assert np.array_equal(made.starts, RunMask.of(expected).starts)
