"""Polygons against the test of each pixel's centre, and against the COCO API."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco_api

from backend.dataset.readers.outlines import fill_centres, fill_with_edges


def star(seed: int, size: float) -> npt.NDArray[np.float64]:
    chance = np.random.default_rng(seed)
    angles = np.sort(chance.random(9)) * 2 * np.pi
    radii = size * (0.15 + 0.3 * chance.random(9))
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None] + size / 2


@pytest.mark.parametrize("seed", range(5))
def test_a_pixel_is_inside_where_its_centre_is(seed: int) -> None:
    points = star(seed, 40)
    contour = points.astype(np.float32)[:, None]
    expected = [
        [cv2.pointPolygonTest(contour, (x + 0.5, y + 0.5), False) > 0 for x in range(40)]
        for y in range(40)
    ]
    np.testing.assert_array_equal(fill_centres([points], (40, 40)), expected)


@pytest.mark.parametrize("seed", range(3))
def test_a_polygon_at_1000_px_is_that_of_the_coco_api(seed: int) -> None:
    points = star(seed, 1000)
    (rle,) = coco_api.frPyObjects([points.ravel().tolist()], 1000, 1000)
    expected = coco_api.decode(rle) > 0
    mask = fill_centres([points], (1000, 1000))
    assert (mask & expected).sum() / (mask | expected).sum() > 0.995


def test_a_mask_that_was_traced_along_its_pixels_comes_back() -> None:
    mask = np.zeros((60, 80), np.uint8)
    cv2.circle(mask, (40, 30), 20, 1, -1)
    mask[10:20, 2:5] = 1
    traced, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = fill_with_edges([each[:, 0] + 0.5 for each in traced], (60, 80))
    np.testing.assert_array_equal(found, mask > 0)


def test_parts_are_united_and_what_lies_outside_is_cut_off() -> None:
    one = np.array([[-50.0, -50], [2, -50], [2, 2], [-50, 2]])
    other = np.array([[1.0, 1], [3, 1], [3, 900], [1, 900]])
    mask = fill_centres([one, other], (4, 4))
    expected = np.zeros((4, 4), bool)
    expected[:2, :2] = expected[1:, 1:3] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("fill", [fill_centres, fill_with_edges])
@pytest.mark.parametrize(
    "points", [np.zeros((2, 2)), np.zeros((0, 2)), np.full((3, 2), np.nan), np.full((3, 2), np.inf)]
)
def test_what_is_no_polygon_is_refused(fill: object, points: npt.NDArray[np.float64]) -> None:
    assert callable(fill)
    with pytest.raises(ValueError, match="a polygon of it"):
        fill([points], (4, 4))


def test_a_hostile_zigzag_is_refused_before_it_is_filled() -> None:
    zigzag = np.zeros((200_000, 2))
    zigzag[::2, 1] = 1000
    for fill in (fill_centres, fill_with_edges):
        with pytest.raises(
            ValueError, match="too jagged: its edges cross 200000000 rows of pixels"
        ):
            fill([zigzag], (1000, 4))
