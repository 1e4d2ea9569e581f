"""An image made ready for prompts."""

import numpy as np
import pytest

from clearclip_core.prompting.prompted_image import FineImage, GeodesicGrid, GridGeometry


def fine_image(image_hw: tuple[int, int] = (40, 80)) -> FineImage:
    """A left half in black and a right half in white: 20 x 40 px, cells of 4 x 4 px."""
    rgb = np.zeros((20, 40, 3), np.uint8)
    rgb[:, 18:] = 255
    return FineImage(rgb, GridGeometry(image_hw, (20, 40), (5, 10), patch_px=16.0))


def test_log_odds_are_sharpened_at_the_edge_of_the_image() -> None:
    log_odds = np.full((1, 5, 10), -9, np.float32)
    log_odds[:, :, 5:] = 9  # from 20 px on, where the edge of the image is at 18 px
    inside = fine_image().decide(log_odds)
    assert inside.shape == (20, 40)
    assert np.flatnonzero(inside[10])[0] == 18


def colours(*rows: str) -> np.ndarray:
    """(h, w, 3): the lightness of each digit, in tens."""
    lightness = np.array([[10.0 * int(digit) for digit in row] for row in rows], np.float32)
    return np.stack([lightness, *np.zeros((2, *lightness.shape))], axis=2)


def plain(size_hw: tuple[int, int]) -> np.ndarray:
    return np.ones((*size_hw, 1), np.float32)


def test_a_path_goes_around_an_edge_where_that_is_shorter() -> None:
    grid = GeodesicGrid(colours("00000", "00900", "00000"), plain((3, 5)))
    seeds = np.zeros((3, 5), bool)
    seeds[1, 0] = True
    distance = grid.distance(seeds)
    assert distance[1, 2] == pytest.approx(0.5 + 90 + 0.5)
    assert distance[1, 4] == pytest.approx(6 * 0.5)  # around, not through


def test_a_change_of_class_is_an_edge_too() -> None:
    certain = np.array([[[1, 0], [1, 0], [1, 0], [0, 1]]], np.float32)
    grid = GeodesicGrid(colours("0000"), certain)
    distance = grid.distance(np.array([[True, False, False, False]]))
    assert distance[0] == pytest.approx([0, 0.5, 1, 1.5 + 30 * 2**0.5])


def test_a_difference_that_half_of_all_steps_have_is_no_edge() -> None:
    grid = GeodesicGrid(colours("01010", "10101"), plain((2, 5)))
    seeds = np.zeros((2, 5), bool)
    seeds[0, 0] = True
    assert grid.distance(seeds)[1, 4] == pytest.approx(5 * 0.5)


def test_distances_from_the_last_clicks_are_kept() -> None:
    grid = GeodesicGrid(colours(*["0123401234"] * 3), plain((3, 10)))
    cells = [(y, x) for y in range(3) for x in range(10)]
    for y, x in cells:
        seed = np.zeros((3, 10), bool)
        seed[y, x] = True
        assert np.array_equal(grid.distance_from((y, x)), grid.distance(seed))
    assert grid.distance_from(cells[-1]) is grid.distance_from(cells[-1])
    assert len(grid._kept) < len(cells)
