"""Runs of label maps, and which of them touch, against every pair of neighbouring pixels."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest

from clearclip_core.segmentation.label_runs import LabelRuns
from tests.core.segmentation.test_label_masks import drawn_by_chance


def run_of_px(label_map: np.ndarray) -> np.ndarray:
    """The number of each pixel's run, counted one pixel after the other."""
    numbers = np.empty(label_map.shape, int)
    count = -1
    for y, x in np.ndindex(label_map.shape):
        count += x == 0 or label_map[y, x] != label_map[y, x - 1]
        numbers[y, x] = count
    return numbers


def touching(numbers: np.ndarray, down: int, right: int) -> set[tuple[int, int]]:
    """The numbers of all pixels and of those so far down and to the right of them."""
    height, width = numbers.shape
    inside = (
        (y, x) for y, x in product(range(height - down), range(width)) if 0 <= x + right < width
    )
    return {(int(numbers[at]), int(numbers[at[0] + down, at[1] + right])) for at in inside}


@pytest.mark.parametrize("seed", range(40))
def test_runs_touch_as_their_pixels_do(seed: int) -> None:
    label_map = drawn_by_chance(seed)
    numbers = run_of_px(label_map)
    runs = LabelRuns.of(label_map)
    assert len(runs) == numbers.max() + 1
    assert runs.lengths.tolist() == np.bincount(numbers.ravel()).tolist()
    assert runs.labels[numbers].tolist() == label_map.tolist()
    rows, columns, corners = (
        list(zip(*(each.tolist() for each in pairs), strict=True))
        for pairs in (runs.touching_rows, runs.touching_columns, runs.touching_corners)
    )
    below = touching(numbers, 1, 0)
    assert len(rows) == len(below)
    assert set(rows) == below
    assert set(columns) == {(one, two) for one, two in touching(numbers, 0, 1) if one != two}
    assert set(corners) == (touching(numbers, 1, 1) | touching(numbers, 1, -1)) - below
    border = np.unique([*numbers[0], *numbers[-1], *numbers[:, 0], *numbers[:, -1]])
    assert np.flatnonzero(runs.touches_border).tolist() == border.tolist()


def test_bands_end_between_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    label_map = drawn_by_chance(3)
    values = np.random.default_rng(3).random(label_map.shape).astype(np.float16)
    whole = LabelRuns.of(label_map)
    sums = whole.sums(values)
    for name in ("_COMPARED_PX", "_SUMMED_PX"):
        monkeypatch.setattr(f"clearclip_core.segmentation.label_runs.{name}", 1)
    assert LabelRuns.of(label_map).starts.tolist() == whole.starts.tolist()
    assert whole.sums(values).tolist() == sums.tolist()


def test_a_map_of_no_columns_has_no_runs() -> None:
    assert len(LabelRuns.of(np.zeros((3, 0), np.int16))) == 0


def test_numbers_in_half_precision_are_summed_unchanged() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)[: 31 << 10]  # finite, from 0 on
    own_runs = LabelRuns.of(np.arange(every.size)[None])
    assert np.array_equal(own_runs.sums(every[None]), every.astype(np.float64))


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f4"])
def test_numbers_that_torch_does_not_take_are_summed(dtype: str) -> None:
    values = np.array([[0.5, 1.0], [4.0, 8.0]], dtype)
    values.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LabelRuns.of(np.array([[0, 0], [0, 1]])).sums(values).tolist() == [1.5, 4.0, 8.0]
