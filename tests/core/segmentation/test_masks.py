"""Islands and holes on masks drawn by hand: # is in the mask, + is wanted beside it."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from scipy import ndimage

from clearclip_core import (
    BoolMask,
    LabelMasks,
    RunMask,
    boundary_band,
    drop_islands,
    fill_holes,
    label_masks,
)
from clearclip_core.segmentation import masks, runs
from clearclip_core.segmentation import masks as module


def drawn(*rows: str, ink: str = "#") -> BoolMask:
    return np.array([[character in ink for character in row] for row in rows])


ISLANDS = (
    "##..#...",
    "##...#..",  # touches the pixel above by a corner: one part of 2
    "........",
    "#.......",
)


def test_islands_smaller_than_asked_are_dropped() -> None:
    mask = drawn(*ISLANDS)
    assert np.array_equal(drop_islands(mask, 1), mask)
    without_one = drawn(*ISLANDS[:3], "........")
    assert np.array_equal(drop_islands(mask, 2), without_one)
    square = drawn("##......", "##......", "........", "........")
    assert np.array_equal(drop_islands(mask, 3), square)
    assert np.array_equal(drop_islands(mask, 4), square)
    assert not drop_islands(mask, 5).any()


def test_empty_and_full_masks_stay() -> None:
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    assert np.array_equal(drop_islands(empty, 9), empty)
    assert np.array_equal(drop_islands(full, 20), full)
    assert not drop_islands(full, 21).any()
    assert np.array_equal(fill_holes(empty, 100), empty)
    assert np.array_equal(fill_holes(full, 100), full)


HOLES = (
    "#########.",
    "#+##++###.",
    "##+##+####",  # the holes on the left meet by a corner: two of 1 px, beside one of 3 px
    "##########",
    "###.######",
    "###.######",  # open to the border
)


def test_holes_smaller_than_asked_are_filled() -> None:
    """Corners do not join holes, and what touches the border is none."""
    mask = drawn(*HOLES)
    assert np.array_equal(fill_holes(mask, 1), mask)
    small = drawn("#########.", "####..###.", "#####.####", *HOLES[3:])
    assert np.array_equal(fill_holes(mask, 2), small)
    assert np.array_equal(fill_holes(mask, 3), small)
    for max_px in (4, 1000):
        assert np.array_equal(fill_holes(mask, max_px), drawn(*HOLES, ink="#+"))


def whole_parts(mask: BoolMask, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    """Connected parts of the whole picture in one pass: number of each pixel's part, areas."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=connectivity
    )
    return parts, stats[:, cv2.CC_STAT_AREA]


def blobs(seed: int, size_hw: tuple[int, int], grain_px: int, share: float) -> BoolMask:
    """Spots of about `grain_px`, one inside the other, apart or touching, over `share`."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((size_hw[0] // grain_px + 2, size_hw[1] // grain_px + 2)).astype("f")
    smooth = cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return (smooth < np.quantile(smooth, share)) ^ (rng.random(size_hw) < 0.002)


@pytest.mark.parametrize("size_hw", [(200, 300), (64, 64), (33, 97), (5, 400), (1, 1)])
@pytest.mark.parametrize("grain_px", [3, 17, 60])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_parts_apart_are_cleaned_as_the_whole_picture_is(
    size_hw: tuple[int, int], grain_px: int, share: float
) -> None:
    for seed in range(3):
        mask = blobs(seed, size_hw, grain_px, share)
        parts, areas = whole_parts(mask, 8)
        large = (areas >= 20) & (np.arange(len(areas)) > 0)
        assert np.array_equal(drop_islands(mask, 20), large[parts])
        parts, areas = whole_parts(np.pad(~mask, 1, constant_values=True), 4)
        small = (areas < 20) & (np.arange(len(areas)) != parts[0, 0]) & (np.arange(len(areas)) > 0)
        assert np.array_equal(fill_holes(mask, 20), mask | small[parts][1:-1, 1:-1])


@pytest.mark.parametrize("size_hw", [(60, 80), (9, 200), (1, 1), (3, 3)])
@pytest.mark.parametrize("share", [0.02, 0.1])
@pytest.mark.parametrize("strip_px", [1, 1 << 24], ids=["strips", "whole"])
def test_the_boundary_is_what_erosions_take_away(
    size_hw: tuple[int, int], share: float, strip_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Cheng et al. wrote it: as many erosions as the band is wide, the picture's edge too."""
    monkeypatch.setattr(masks, "_STRIP_PX", strip_px)
    for seed in range(3):
        mask = blobs(seed, size_hw, 17, 0.5)
        steps = max(1, round(share * float(np.hypot(*size_hw))))
        padded = np.pad(mask.astype(np.uint8), 1)
        inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=steps)[1:-1, 1:-1]
        assert np.array_equal(boundary_band(mask, share), mask & (inner == 0))
    assert not boundary_band(np.zeros(size_hw, dtype=bool)).any()


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


LABELS = np.array(
    [
        [0, 0, 0, 2, 2],
        [0, 2, 0, 2, 2],
        [0, 0, 0, -1, 5],
    ],
    np.int16,
)


#: Label 0 without its hole.
LABELS_FILLED = np.array([[True] * 3 + [False] * 2] * 3)


def test_each_label_that_is_left_gets_a_mask() -> None:
    masks = label_masks(LABELS)
    assert list(masks) == [0, 2, 5]
    for index, mask in masks.items():
        assert mask.dtype == bool
        assert np.array_equal(mask, index == LABELS)


def test_masks_are_cleaned_and_empty_ones_left_out() -> None:
    masks = label_masks(LABELS, min_island_px=2, min_hole_px=2)
    assert list(masks) == [0, 2]
    assert np.array_equal(masks[0], LABELS_FILLED)
    assert np.argwhere(masks[2]).tolist() == [[0, 3], [0, 4], [1, 3], [1, 4]]
    assert label_masks(np.full((3, 3), -1)) == {}


def cleaned(mask: BoolMask, min_island_px: int, min_hole_px: int) -> BoolMask:
    """Clean one mask, part by part."""
    kept = mask.copy()
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    for part in range(1, count + 1):
        if (parts == part).sum() < min_island_px:
            kept[parts == part] = False
    filled = kept.copy()
    parts, count = ndimage.label(~kept)
    rim = {*parts[0], *parts[-1], *parts[:, 0], *parts[:, -1]}
    for part in set(range(1, count + 1)) - rim:
        if (parts == part).sum() < min_hole_px:
            filled[parts == part] = True
    return filled


def label_map_by_chance(seed: int) -> np.ndarray:
    """A label map of blocks and specks, up to 40 px a side."""
    rng = np.random.default_rng(seed)
    (height, width), grain, labels = rng.integers(1, 40, 2), rng.integers(1, 6), rng.integers(1, 5)
    coarse = rng.integers(-1, labels, (height // grain + 1, width // grain + 1))
    label_map = coarse.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width].copy()
    specks = rng.random((height, width)) < rng.choice([0, 0.05, 0.3])
    label_map[specks] = rng.integers(-1, labels, (height, width))[specks]
    return label_map.astype(np.int16)


@pytest.mark.parametrize("most_runs", [0.0, 1.0])
@pytest.mark.parametrize("part", range(4))
def test_all_labels_at_once_are_cleaned_as_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch, most_runs: float, part: int
) -> None:
    """By their runs, and label by label as in noise."""
    monkeypatch.setattr(module, "_MOST_RUNS", most_runs)
    for seed in range(100 * part, 100 * part + 60):
        label_map = label_map_by_chance(seed)
        least = np.random.default_rng(seed).choice([0, 1, 2, 3, 5, 9, 20, 60], 2).tolist()
        expected = {
            label: cleaned(label_map == label, *least)
            for label in np.unique(label_map).tolist()
            if label >= 0
        }
        masks = label_masks(label_map, *least)
        assert list(masks) == [label for label, mask in expected.items() if mask.any()], seed
        for label, mask in masks.items():
            assert np.array_equal(mask, expected[label]), (seed, label)


def test_a_mask_is_made_when_it_is_asked_for() -> None:
    masks = LabelMasks(LABELS, min_island_px=2)
    assert masks.labels == [0, 2, 5]
    assert np.array_equal(masks.mask(0), LABELS == 0)
    assert not masks.mask(5).any()
    assert not masks.mask(7).any()
    assert masks.mask(7).shape == LABELS.shape


@pytest.mark.parametrize("most_runs", [0.0, 1.0])
def test_the_mean_confidence_is_that_of_the_cleaned_mask(
    monkeypatch: pytest.MonkeyPatch, most_runs: float
) -> None:
    monkeypatch.setattr(module, "_MOST_RUNS", most_runs)
    for seed in range(40):
        label_map = label_map_by_chance(seed)
        confidence = np.random.default_rng(seed).random(label_map.shape).astype(np.float16)
        masks = LabelMasks(label_map, 3, 5, confidence)
        for label in masks.labels:
            mask = cleaned(label_map == label, 3, 5)
            expected = confidence[mask].mean(dtype=np.float64) if mask.any() else 0.0
            assert masks.mean_confidence(label) == pytest.approx(expected, rel=1e-12)
        assert masks.mean_confidence(99) == 0.0


def test_labels_share_masks() -> None:
    """The masks of a label map whose pixels have other numbers."""
    numbers = np.array([1, -1, 0, 1, -1])  # of the labels 0 to 3, and of -1
    for seed in range(40):
        label_map = label_map_by_chance(seed)
        confidence = np.random.default_rng(seed).random(label_map.shape).astype(np.float16)
        masks = LabelMasks(label_map, 3, 5, confidence, numbers)
        assert set(masks.labels) <= {0, 1}
        for number in (0, 1):
            mask = cleaned(numbers[label_map] == number, 3, 5)
            assert np.array_equal(masks.mask(number), mask), seed
            expected = confidence[mask].mean(dtype=np.float64) if mask.any() else 0.0
            assert masks.mean_confidence(number) == pytest.approx(expected, rel=1e-12)


def test_a_mean_confidence_needs_the_confidence() -> None:
    with pytest.raises(ValueError, match="`confidence`"):
        LabelMasks(LABELS).mean_confidence(0)
