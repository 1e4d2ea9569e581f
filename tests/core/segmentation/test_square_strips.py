"""Squares read from and written to arrays, against slices one by one."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.segmentation.square_strips import read_strip, write_strip

TOP, LEFT = np.array([3, 0, 0, 3, 3, 0, 1]), np.array([0, 6, 0, 6, 3, 3, 2])


@pytest.mark.parametrize("size_hw", [(6, 9), (4, 7), (6, 7), (4, 9), (7, 12)])
def test_squares_are_read_with_the_last_pixels_repeated(size_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    padded = np.pad(image, ((0, 3), (0, 3), (0, 0)), mode="edge")
    places = zip(TOP, LEFT, strict=True)
    expected = np.hstack([padded[top : top + 3, left : left + 3] for top, left in places])
    assert np.array_equal(read_strip(image, TOP, LEFT, 3), expected)


@pytest.mark.parametrize("image_hw", [(6, 9), (4, 7), (6, 7), (4, 9), (7, 12)])
def test_squares_are_written_without_what_is_beyond_the_array(image_hw: tuple[int, int]) -> None:
    expected = np.arange(108).reshape(9, 12)
    places = zip(TOP, LEFT, strict=True)
    strip = np.hstack([expected[top:, left:][:3, :3] for top, left in places])
    target = np.full(image_hw, -1)
    write_strip(target, TOP, LEFT, strip)
    written = np.zeros((9, 12), np.bool_)
    written[:6, :9] = True
    wanted = np.where(written, expected, -1)[: image_hw[0], : image_hw[1]]
    assert np.array_equal(target, wanted)


@pytest.mark.parametrize("size_hw", [(1, 1), (2, 9), (9, 2)])
def test_an_array_may_be_smaller_than_a_square(size_hw: tuple[int, int]) -> None:
    image = np.full((*size_hw, 3), 7, np.uint8)
    first = np.zeros(1, int)
    assert (read_strip(image, first, first, 4) == 7).all()
    target = np.zeros(size_hw, int)
    write_strip(target, first, first, np.ones((4, 4), int))
    assert target.sum() == min(size_hw[0], 4) * min(size_hw[1], 4)
