"""Pixels of an image by tiles, the last pixels repeated in tiles that reach beyond it.

No padded copy of the image is made: it would take as much memory as the image.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.square_strips import read_strip
from clearclip_core.segmentation.tile_grid import TileGrid
from clearclip_core.segmentation.tile_parts import TileParts
from clearclip_core.segmentation.upsampling import Indices, Matrix

Float32s = npt.NDArray[np.float32]


class _Colours(NamedTuple):
    """What is known of the colours of all tiles.

    Attributes:
        mean: (rows, columns, 3) uint8.
        low: (rows, p, columns, p, 3) uint8, the least of each part, p along a side of a tile.
        high: the same of the largest.
    """

    mean: npt.NDArray[np.uint8]
    low: npt.NDArray[np.uint8]
    high: npt.NDArray[np.uint8]


class ImageTiles:
    """The tiles of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        grid: the tiles.

    Attributes:
        parts: the squares into which a tile is cut.
    """

    def __init__(self, image: RGBArray, grid: TileGrid) -> None:
        self._image, self._tile_px = np.ascontiguousarray(image), grid.tile_px
        self._tiles_hw, self.parts = grid.tiles_hw, TileParts(grid.tile_px)

    def row(self, row: int) -> RGBArray:
        """Return (tile_px, columns * tile_px, 3) pixels of one row of tiles, a new array."""
        return pad(self.row_inside(row), (1, self._tiles_hw[1]), self._tile_px)

    def row_inside(self, row: int) -> RGBArray:
        """Return (h, W, 3) the pixels of one row of tiles that the image has, a view."""
        first = row * self._tile_px
        return self._image[first : first + self._tile_px]

    def strip(self, top: Indices, left: Indices, side: int) -> RGBArray:
        """Return (side, N * side, 3) pixels of squares that lie side by side.

        Args:
            top: (N,) first rows of the squares in px.
            left: (N,) first columns.
            side: rows and columns of a square.
        """
        return read_strip(self._image, top, left, side)

    def mean_colours(self) -> Matrix:
        """Return (rows, columns, 3) float64 mean colours of tiles, in whole steps of [0, 255]."""
        return self._colours.mean.astype(np.float64)

    def colour_range(self) -> tuple[Float32s, Float32s]:
        """Return (3, rows, columns) the middle, and half the range, of each colour in each tile."""
        low, high = self._colours.low.min(axis=(1, 3)), self._colours.high.max(axis=(1, 3))
        return _middle_and_half(low.transpose(2, 0, 1), high.transpose(2, 0, 1))

    def part_colour_range(self, y: Indices, x: Indices) -> tuple[Float32s, Float32s]:
        """Return the middle, and half the range, of each colour in the parts of some tiles.

        Args:
            y: (N,) rows of tiles.
            x: (N,) columns.

        Returns:
            (3, P, N) each, for the P parts of a tile.
        """
        low, high = (
            extreme[y, :, x].reshape(len(y), -1, 3).transpose(2, 1, 0)
            for extreme in (self._colours.low, self._colours.high)
        )
        return _middle_and_half(low, high)

    @cached_property
    def _colours(self) -> _Colours:
        """Mean colours of all tiles and extreme ones of their parts, from one walk."""
        rows = self._tiles_hw[0]
        sums, lows, highs = [], [], []
        dtype = np.uint16 if 255 * self._tile_px < 1 << 16 else np.uint32
        for row in range(rows):
            pixels = self.row(row)
            sums.append(np.add.reduce(pixels, dtype=dtype))
            for start in self.parts.starts_px:
                some = pixels[start : start + self.parts.side_px]
                lows.append(np.minimum.reduce(some))
                highs.append(np.maximum.reduce(some))
        return _Colours(
            _rounded_means(np.stack(sums), self._tile_px),
            self._over_columns(cv2.erode, lows),
            self._over_columns(cv2.dilate, highs),
        )

    def _over_columns(
        self, extreme: Callable[..., Any], of_rows: list[npt.NDArray[np.uint8]]
    ) -> npt.NDArray[np.uint8]:
        """Return (rows, p, columns, p, 3) extremes of parts from those of each of their columns."""
        rows, columns = self._tiles_hw
        starts, side = np.array(self.parts.starts_px), self.parts.side_px
        # The extreme of a place and of those on its right, of which the first of parts are kept.
        line = np.ones((1, side), np.uint8)
        found = np.asarray(extreme(np.stack(of_rows), line, anchor=(0, 0)))
        first = (self._tile_px * np.arange(columns)[:, None] + starts).ravel()
        return found[:, first].reshape(rows, len(starts), columns, len(starts), 3)


def _rounded_means(
    sums: npt.NDArray[np.unsignedinteger[Any]], tile_px: int
) -> npt.NDArray[np.uint8]:
    """Return (rows, columns, 3) means of tiles, rounded as by OpenCV's ``INTER_AREA``.

    OpenCV takes twice as long for them.

    Args:
        sums: (rows, columns * tile_px, 3), of the columns of pixels in rows of tiles.
        tile_px: side of a tile.
    """
    first = np.arange(0, sums.shape[1], tile_px)
    totals = np.add.reduceat(sums, first, axis=1, dtype=np.uint32)
    if tile_px == 2:  # halves are rounded up there, else to even numbers
        return np.asarray((totals + 2) // 4, np.uint8)
    share = np.float32(1) / np.float32(tile_px**2)
    return np.asarray(np.rint(totals.astype(np.float32) * share), np.uint8)


def _middle_and_half(
    low: npt.NDArray[np.uint8], high: npt.NDArray[np.uint8]
) -> tuple[Float32s, Float32s]:
    """Return the middle and half the range of numbers that lie between two."""
    least, most, half = low.astype(np.float32), high.astype(np.float32), np.float32(0.5)
    return (most + least) * half, (most - least) * half


def pad(values: npt.NDArray[Any], tiles_hw: tuple[int, int], tile_px: int) -> npt.NDArray[Any]:
    """Repeat the last row and column of an array up to so many whole tiles, in a new array.

    >>> pad(np.array([[1, 2, 3]], np.uint8), (1, 2), tile_px=2).tolist()
    [[1, 2, 3, 3], [1, 2, 3, 3]]
    """
    below, right = (n * tile_px - px for n, px in zip(tiles_hw, values.shape, strict=False))
    return np.asarray(cv2.copyMakeBorder(values, 0, below, 0, right, cv2.BORDER_REPLICATE))
