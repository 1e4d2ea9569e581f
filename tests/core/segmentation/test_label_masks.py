"""Masks of whole label maps, against scipy's connected components of one label at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from clearclip_core import BoolMask, LabelMasks, label_masks
from clearclip_core.segmentation import masks as module

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


def drawn_by_chance(seed: int) -> np.ndarray:
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
        label_map = drawn_by_chance(seed)
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
        label_map = drawn_by_chance(seed)
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
        label_map = drawn_by_chance(seed)
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
