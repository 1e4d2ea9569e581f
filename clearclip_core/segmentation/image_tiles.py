"""Pixels of an image by tiles, the last pixels repeated in tiles that reach beyond it.

No padded copy of the image is made: it would take as much memory as the image.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.tile_grid import TileGrid
from clearclip_core.segmentation.upsampling import Indices, Matrix

Float32s = npt.NDArray[np.float32]


class ImageTiles:
    """The tiles of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        grid: the tiles.
    """

    def __init__(self, image: RGBArray, grid: TileGrid) -> None:
        self._image, self._tile_px = image, grid.tile_px
        self._tiles_hw = grid.tiles_hw
        height, width = (px // grid.tile_px for px in grid.image_hw)
        whole = image[: height * grid.tile_px, : width * grid.tile_px]
        self._whole = whole.reshape(height, grid.tile_px, width, grid.tile_px, 3)

    def row(self, row: int) -> RGBArray:
        """Return (tile_px, columns * tile_px, 3) pixels of one row of tiles, a new array."""
        first = row * self._tile_px
        pixels = self._image[first : first + self._tile_px]
        return pad(pixels, (1, self._tiles_hw[1]), self._tile_px)

    def at(self, y: Indices, x: Indices) -> RGBArray:
        """Return (N, tile_px, tile_px, 3) pixels of tiles at (N,) rows and columns of tiles."""
        height, _, width, *_ = self._whole.shape
        whole = (y < height) & (x < width)
        if whole.all():
            return self._whole[y, :, x]
        tiles = np.empty((len(y), self._tile_px, self._tile_px, 3), np.uint8)
        tiles[whole] = self._whole[y[whole], :, x[whole]]
        for index in np.flatnonzero(~whole).tolist():
            top, left = y[index] * self._tile_px, x[index] * self._tile_px
            part = self._image[top : top + self._tile_px, left : left + self._tile_px]
            tiles[index] = pad(part, (1, 1), self._tile_px)
        return tiles

    def mean_colours(self) -> Matrix:
        """Return (rows, columns, 3) float64 mean colours of tiles, in whole steps of [0, 255]."""
        rows, columns = self._tiles_hw
        means = [
            cv2.resize(self.row(row), (columns, 1), interpolation=cv2.INTER_AREA)
            for row in range(rows)
        ]
        return np.concatenate(means, dtype=np.float64)

    def colour_range(self) -> tuple[Float32s, Float32s]:
        """Return (3, rows, columns) the middle, and half the range, of each colour in each tile."""
        low, high = (
            self._extreme(extreme).transpose(2, 0, 1).astype(np.float32)
            for extreme in (np.minimum, np.maximum)
        )
        half = np.float32(0.5)
        return (high + low) * half, (high - low) * half

    def _extreme(self, extreme: np.ufunc) -> npt.NDArray[np.uint8]:
        """Return (rows, columns, 3) the least or the largest of each colour in each tile."""
        rows, columns = self._tiles_hw
        of_rows = np.stack([extreme.reduce(self.row(row)) for row in range(rows)])
        by_place = of_rows.reshape(rows, columns, self._tile_px, 3)
        found: npt.NDArray[np.uint8] = by_place[:, :, 0].copy()
        for place in range(1, self._tile_px):  # faster than to reduce an axis of few elements
            extreme(found, by_place[:, :, place], out=found)
        return found


def pad(values: npt.NDArray[Any], tiles_hw: tuple[int, int], tile_px: int) -> npt.NDArray[Any]:
    """Repeat the last row and column of an array up to so many whole tiles, in a new array.

    >>> pad(np.array([[1, 2, 3]], np.uint8), (1, 2), tile_px=2).tolist()
    [[1, 2, 3, 3], [1, 2, 3, 3]]
    """
    below, right = (n * tile_px - px for n, px in zip(tiles_hw, values.shape, strict=False))
    return np.asarray(cv2.copyMakeBorder(values, 0, below, 0, right, cv2.BORDER_REPLICATE))
