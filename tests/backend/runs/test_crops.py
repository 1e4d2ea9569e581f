"""Crops show the largest part of a mask, with what is around it."""

import numpy as np

from backend.runs.crops import around, crop_of, largest_place
from tests.backend.fakes.colour_segmenter import pixels_of


def test_the_largest_part_is_chosen_though_others_are_wider() -> None:
    mask = np.zeros((40, 60), bool)
    mask[2, 5:55] = True
    mask[10:30, 20:30] = True
    assert largest_place(mask) == (slice(10, 30), slice(20, 30))


def test_parts_that_meet_at_a_corner_are_two() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:4, :4] = mask[4:, 4:7] = True
    assert largest_place(mask) == (slice(0, 4), slice(0, 4))


def test_what_is_around_a_place_ends_with_the_image() -> None:
    assert around(slice(0, 90), 100) == slice(0, 100)
    assert around(slice(48, 52), 100) == slice(30, 70)


def test_a_crop_shows_the_mask_in_its_colour_and_the_rest_as_it_is() -> None:
    rgb = np.full((100, 200, 3), 90, np.uint8)
    mask = np.zeros((100, 200), bool)
    mask[40:60, 90:110] = True
    made = pixels_of(crop_of(rgb, mask, np.array([[255, 0, 0]], np.uint8), 160)).astype(int)
    assert made.shape == (40, 80, 3)
    middle, corner = made[18:22, 38:42].reshape(-1, 3).mean(0), made[:4, :4].reshape(-1, 3).mean(0)
    assert middle[0] > middle[1] + 60
    assert abs(corner - 90).max() < 4
