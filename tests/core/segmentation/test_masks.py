"""Masks: islands, holes and boundaries against whole pictures, runs against pixels."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from clearclip_core import BoolMask, Segmentation, drop_islands
from clearclip_core.segmentation import masks
from clearclip_core.segmentation.masks import boundary_band, fill_holes


def blobs(seed: int, size_hw: tuple[int, int], grain_px: int, share: float) -> BoolMask:
    """Spots of about `grain_px`, one inside the other, apart or touching, over `share`."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((size_hw[0] // grain_px + 2, size_hw[1] // grain_px + 2)).astype("f")
    smooth = cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return (smooth < np.quantile(smooth, share)) ^ (rng.random(size_hw) < 0.002)


@pytest.mark.parametrize("size_hw", [(200, 300), (64, 64), (33, 97), (5, 400), (1, 1)])
@pytest.mark.parametrize("grain_px", [3, 17, 60])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_parts_are_cleaned_as_whole(size_hw: tuple[int, int], grain_px: int, share: float) -> None:
    for seed in range(3):
        mask = blobs(seed, size_hw, grain_px, share)
        assert np.array_equal(drop_islands(mask, 20), cleaned(mask, 20, 0))
        assert np.array_equal(fill_holes(mask, 20), cleaned(mask, 0, 20))


@pytest.mark.parametrize("size_hw", [(60, 80), (9, 200), (1, 1), (3, 3)])
@pytest.mark.parametrize("share", [0.02, 0.1])
def test_the_boundary_is_what_erosions_take_away(size_hw: tuple[int, int], share: float) -> None:
    """As Cheng et al. wrote it: as many erosions as the band is wide, the picture's edge too."""
    for seed in range(3):
        mask = blobs(seed, size_hw, 17, 0.5)
        steps = max(1, round(share * float(np.hypot(*size_hw))))
        padded = np.pad(mask.astype(np.uint8), 1)
        inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=steps)[1:-1, 1:-1]
        assert np.array_equal(boundary_band(mask, share), mask & (inner == 0))
    assert not boundary_band(np.zeros(size_hw, dtype=bool)).any()


def cleaned(mask: BoolMask, min_island_px: int, min_hole_px: int) -> BoolMask:
    """Clean one mask by the areas of its parts, and of those of the rest away from its edge."""
    parts, _ = ndimage.label(mask, np.ones((3, 3)))
    kept = mask & (np.bincount(parts.ravel()) >= min_island_px)[parts]
    parts, _ = ndimage.label(~kept)
    is_small = np.bincount(parts.ravel()) < min_hole_px
    is_small[[*parts[0], *parts[-1], *parts[:, 0], *parts[:, -1]]] = False
    return kept | is_small[parts]


def label_map_by_chance(seed: int) -> np.ndarray:
    """A label map of blocks and specks, up to 40 px a side."""
    rng = np.random.default_rng(seed)
    (height, width), grain, labels = rng.integers(1, 40, 2), rng.integers(1, 6), rng.integers(1, 5)
    coarse = rng.integers(-1, labels, (height // grain + 1, width // grain + 1))
    label_map = coarse.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width].copy()
    specks = rng.random((height, width)) < rng.choice([0, 0.05, 0.3])
    label_map[specks] = rng.integers(-1, labels, (height, width))[specks]
    return label_map.astype(np.int16)


def segmentation_by_chance(seed: int) -> Segmentation:
    label_map = label_map_by_chance(seed)
    confidence = np.random.default_rng(seed).random(label_map.shape).astype(np.float16)
    return Segmentation(label_map, confidence, tuple("abcd"))


def mean_in(mask: BoolMask, confidence: np.ndarray) -> object:
    expected = confidence[mask].mean(dtype=np.float64) if mask.any() else 0.0
    return pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("most_runs", [0.0, 1.0])
@pytest.mark.parametrize("part", range(4))
def test_all_labels_at_once_are_cleaned_as_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch, most_runs: float, part: int
) -> None:
    """By their runs, and label by label as in noise."""
    monkeypatch.setattr(masks, "_MOST_RUNS", most_runs)
    for seed in range(100 * part, 100 * part + 60):
        made = segmentation_by_chance(seed)
        least = np.random.default_rng(seed).choice([0, 1, 2, 3, 5, 9, 20, 60], 2).tolist()
        expected = {
            label: cleaned(made.label_map == label, *least)
            for label in np.unique(made.label_map).tolist()
            if label >= 0
        }
        found = made.label_masks(*least)
        assert found.labels == list(expected)
        assert [label for label, _ in found] == [k for k, mask in expected.items() if mask.any()]
        for label, mask in expected.items():
            assert np.array_equal(found.mask(label), mask), (seed, label)
            assert found.mean_confidence(label) == mean_in(mask, made.confidence)
        assert not found.mask(99).any()
        assert found.mask(99).shape == made.size_hw
        assert found.mean_confidence(99) == 0.0


def test_labels_share_masks() -> None:
    """The masks of a label map whose pixels have other numbers."""
    numbers = np.array([1, -1, 0, 1, -1])  # of the labels 0 to 3, and of -1
    for seed in range(40):
        made = segmentation_by_chance(seed)
        found = made.label_masks(3, 5, numbers)
        assert set(found.labels) <= {0, 1}
        for number in (0, 1):
            mask = cleaned(numbers[made.label_map] == number, 3, 5)
            assert np.array_equal(found.mask(number), mask), seed
            assert found.mean_confidence(number) == mean_in(mask, made.confidence)
