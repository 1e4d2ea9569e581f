"""Cells of pixels and boxes, by hand."""

from __future__ import annotations

from clearclip_core.prompting.prompted_image import GridGeometry

#: Cells of 10 x 10 px of an image of 40 x 60 px, whose fine size is half of that.
GRID = GridGeometry(image_hw=(40, 60), fine_hw=(20, 30), cells_hw=(4, 6), patch_px=8.0)


def test_a_pixel_is_in_one_cell() -> None:
    assert [GRID.cell(pixel) for pixel in ((0, 0), (9, 9), (10, 9), (39, 59))] == [
        (0, 0),
        (0, 0),
        (1, 0),
        (3, 5),
    ]
    cells = GRID.cells([(0, 0), (39, 59), (39, 58)])
    assert cells.sum() == 2
    assert cells[0, 0]
    assert cells[3, 5]


def test_a_box_has_all_cells_that_it_touches() -> None:
    cells = GRID.box_cells((slice(9, 11), slice(20, 30)))
    assert cells.sum() == 2
    assert cells[:2, 2].all()
    assert GRID.box_cells((slice(5, 6), slice(5, 6))).sum() == 1


def test_pixels_keep_their_place_at_the_fine_size() -> None:
    assert GRID.fine_pixels([(0, 0), (39, 59), (20, 31)]) == [(0, 0), (19, 29), (10, 15)]
    assert GRID.cell_area_px == 25


def test_a_box_is_within_a_patch_if_both_sides_are_smaller() -> None:
    assert GRID.is_within_patch((slice(0, 15), slice(0, 15)))  # a patch has 16 px of the image
    assert not GRID.is_within_patch((slice(0, 15), slice(0, 16)))
