"""Pixels by tiles against an image padded as a whole."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clearclip_core.segmentation.image_tiles import ImageTiles
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
    assert np.array_equal(tiles.strip(4 * y, 4 * x, side=4), side_by_side)
    exact = by_tile.mean(axis=(2, 3))
    assert abs(tiles.mean_colours() - exact).max() <= 0.5
    low, high = by_tile.min(axis=(2, 3)), by_tile.max(axis=(2, 3))
    middle, half = tiles.colour_range()
    assert np.array_equal(middle - half, low.transpose(2, 0, 1))
    assert np.array_equal(middle + half, high.transpose(2, 0, 1))


@pytest.mark.parametrize("tile_px", [1, 2, 3, 4, 33, 54, 258])
@pytest.mark.parametrize("most", [2, 256])
def test_mean_colours_are_those_of_opencv(tile_px: int, most: int) -> None:
    """Labels and probabilities of earlier releases follow from these."""
    size_hw = 3 * tile_px, 4 * tile_px
    image = np.random.default_rng(8).integers(0, most, (*size_hw, 3)).astype(np.uint8)
    image[:tile_px] = 255  # the largest sums
    tiles = ImageTiles(image, TileGrid(size_hw, tile_px, radius=1))
    assert np.array_equal(
        tiles.mean_colours(), cv2.resize(image, (4, 3), interpolation=cv2.INTER_AREA)
    )


@pytest.mark.parametrize("tile_px", [4, 5])
def test_parts_of_tiles_have_the_colours_of_their_pixels(
    monkeypatch: pytest.MonkeyPatch, tile_px: int
) -> None:
    monkeypatch.setattr("clearclip_core.segmentation.tile_parts._CUT_FROM_PX", 4)
    image = np.random.default_rng(7).integers(0, 256, (14, 21, 3)).astype(np.uint8)
    tiles = ImageTiles(image, TileGrid((14, 21), tile_px, radius=1))
    padded = np.pad(image, ((0, 6), (0, 6), (0, 0)), mode="edge")
    y, x = np.array([0, 2, 1]), np.array([3, 4, 0])
    middle, half = tiles.part_colour_range(y, x)
    assert middle.shape == half.shape == (3, 4, 3)
    later = tile_px // 2  # the second part begins there, and ends with the tile
    for part, (down, right) in enumerate([(0, 0), (0, later), (later, 0), (later, later)]):
        for tile in range(3):
            top, left = y[tile] * tile_px + down, x[tile] * tile_px + right
            side = tile_px - later
            pixels = padded[top : top + side, left : left + side].reshape(-1, 3)
            low, high = pixels.min(axis=0), pixels.max(axis=0)
            assert (middle - half)[:, part, tile].tolist() == low.tolist()
            assert (middle + half)[:, part, tile].tolist() == high.tolist()
