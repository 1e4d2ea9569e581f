"""Rings, ellipses, parts and runs against drawings that are known."""

import cv2
import numpy as np
import pytest

from backend.dataset.formats.shapes import (
    box_ring,
    draw_rows,
    ellipse_ring,
    fill_rings,
    paste,
    told_as_broken,
)
from backend.errors import DatasetError

SIZE_HW = (40, 60)


def test_a_box_is_filled_and_its_hole_is_not() -> None:
    mask = fill_rings([box_ring(10, 5, 40, 35)], SIZE_HW, [box_ring(20, 10, 30, 20)])
    expected = np.zeros(SIZE_HW, np.bool_)
    expected[5:35, 10:40] = True
    expected[10:20, 20:30] = False
    np.testing.assert_array_equal(mask, expected)


def test_a_ring_of_two_points_has_no_area() -> None:
    assert not fill_rings([box_ring(10, 5, 40, 35)[:2]], SIZE_HW).any()


@pytest.mark.parametrize("degrees", [0, 30, 120])
def test_an_ellipse_is_that_of_opencv_but_for_its_edge(degrees: float) -> None:
    mask = fill_rings([ellipse_ring(30.5, 20.5, 18, 8, degrees)], SIZE_HW)
    canvas = np.zeros(SIZE_HW, np.uint8)
    cv2.ellipse(canvas, (30, 20), (18, 8), degrees, 0, 360, 1, -1)
    kernel = np.ones((3, 3), np.uint8)
    edge = cv2.dilate(canvas, kernel) != cv2.erode(canvas, kernel)
    np.testing.assert_array_equal(mask[~edge], canvas[~edge] == 1)


def test_an_ellipse_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        ellipse_ring(1, 1, float("inf"), 2)


@pytest.mark.parametrize(("left", "top"), [(-1, 0), (0, -1), (56, 0), (0, 38)])
def test_a_part_beyond_the_picture_is_refused(left: int, top: int) -> None:
    with pytest.raises(ValueError, match="beyond the picture"):
        paste(np.ones((3, 5), np.bool_), left, top, SIZE_HW)


def test_runs_go_row_by_row_from_outside() -> None:
    assert draw_rows([1, 2, 3], (2, 3)).tolist() == [[False, True, True], [False] * 3]
    for runs in ([1, 2], [7], [8, -2], [-1, 7]):
        with pytest.raises(ValueError, match="do not make 3×2 px"):
            draw_rows(runs, (2, 3))


def test_what_a_shape_lacks_is_named() -> None:
    told = "The shape 3 is broken, it lacks 'points'"
    with pytest.raises(DatasetError, match=told), told_as_broken("The shape 3"):
        raise KeyError("points")
