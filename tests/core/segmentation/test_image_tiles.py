"""Pixels by tiles against an image padded as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.segmentation.image_tiles import ImageTiles, write_strip
from clearclip_core.segmentation.tile_grid import TileGrid


@pytest.mark.parametrize("size_hw", [(12, 8), (13, 8), (12, 9), (14, 11), (1, 1), (3, 9)])
def test_tiles_are_those_of_the_padded_image(size_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(6).integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    grid = TileGrid(size_hw, tile_px=4, radius=1)
    rows, columns = grid.tiles_hw
    missing = rows * 4 - size_hw[0], columns * 4 - size_hw[1]
    padded = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    by_tile = padded.reshape(rows, 4, columns, 4, 3).swapaxes(1, 2)  # (rows, columns, 4, 4, 3)
    tiles = ImageTiles(image, grid)
    for row in range(rows):
        assert np.array_equal(tiles.row(row), padded[4 * row : 4 * row + 4])
        assert np.array_equal(tiles.row_inside(row), image[4 * row : 4 * row + 4])
    y, x = np.indices((rows, columns)).reshape(2, -1)
    side_by_side = by_tile[y, x].swapaxes(0, 1).reshape(4, -1, 3)
    assert np.array_equal(tiles.strip(y, x), side_by_side)
    exact = by_tile.mean(axis=(2, 3))
    assert abs(tiles.mean_colours() - exact).max() <= 0.5
    low, high = by_tile.min(axis=(2, 3)), by_tile.max(axis=(2, 3))
    middle, half = tiles.colour_range()
    assert np.array_equal(middle - half, low.transpose(2, 0, 1))
    assert np.array_equal(middle + half, high.transpose(2, 0, 1))


@pytest.mark.parametrize("image_hw", [(6, 9), (4, 7), (6, 7), (4, 9)])
def test_tiles_are_written_without_what_is_beyond_the_image(image_hw: tuple[int, int]) -> None:
    expected = np.arange(54).reshape(6, 9)
    y, x = np.array([1, 0, 0, 1, 1, 0]), np.array([0, 2, 0, 2, 1, 1])
    places = zip(y, x, strict=True)
    strip = np.hstack([expected[3 * row :, 3 * column :][:3, :3] for row, column in places])
    target = np.zeros(image_hw, int)
    write_strip(target, y, x, strip)
    assert np.array_equal(target, expected[: image_hw[0], : image_hw[1]])
