"""Islands and holes on masks drawn by hand: # is in the mask, + is wanted beside it."""

from __future__ import annotations

import numpy as np

from clearclip_core import BoolMask, drop_islands, fill_holes, label_masks


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


def test_a_hole_open_at_a_corner_of_the_mask_is_one() -> None:
    mask = drawn("###", "#.#", "##.")  # the middle meets the outside by a corner only
    assert fill_holes(mask, 2).tolist() == drawn("###", "###", "##.").tolist()


def test_arguments_are_left_as_they_are() -> None:
    mask = drawn(*HOLES)
    for clean in (drop_islands, fill_holes):
        for px in (0, 50):
            result = clean(mask, px)
            assert result is not mask
            assert not np.shares_memory(result, mask)
    assert np.array_equal(mask, drawn(*HOLES))


LABELS = np.array(
    [
        [0, 0, 0, 2, 2],
        [0, 2, 0, 2, 2],
        [0, 0, 0, -1, 5],
    ],
    np.int16,
)


def test_each_label_that_is_left_gets_a_mask() -> None:
    masks = label_masks(LABELS)
    assert list(masks) == [0, 2, 5]
    for index, mask in masks.items():
        assert mask.dtype == bool
        assert np.array_equal(mask, index == LABELS)


def test_masks_are_cleaned_and_empty_ones_left_out() -> None:
    masks = label_masks(LABELS, min_island_px=2, min_hole_px=2)
    assert list(masks) == [0, 2]
    assert np.array_equal(masks[0], drawn("###..", "###..", "###.."))
    assert np.array_equal(masks[2], drawn("...##", "...##", "....."))
    assert label_masks(np.full((3, 3), -1)) == {}
