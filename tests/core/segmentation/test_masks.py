"""Islands and holes on masks drawn by hand: # is in the mask, + is wanted beside it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clearclip_core import BoolMask, boundary_band, drop_islands, fill_holes
from clearclip_core.segmentation import masks


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
