"""Pixels of an image by tiles, the last pixels repeated in tiles that reach beyond it.

No padded copy of the image is made: it would take as much memory as the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.tile_grid import TileGrid
from clearclip_core.segmentation.upsampling import Indices, Matrix

Float32s = npt.NDArray[np.float32]


class _Colours(NamedTuple):
    """What is known of the colours of all tiles, (rows, columns, 3) each: uint8."""

    mean: npt.NDArray[np.uint8]
    low: npt.NDArray[np.uint8]
    high: npt.NDArray[np.uint8]


class ImageTiles:
    """The tiles of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        grid: the tiles.
    """

    def __init__(self, image: RGBArray, grid: TileGrid) -> None:
        self._image, self._tile_px = image, grid.tile_px
        self._tiles_hw = grid.tiles_hw

    def row(self, row: int) -> RGBArray:
        """Return (tile_px, columns * tile_px, 3) pixels of one row of tiles, a new array."""
        return pad(self.row_inside(row), (1, self._tiles_hw[1]), self._tile_px)

    def row_inside(self, row: int) -> RGBArray:
        """Return (h, W, 3) the pixels of one row of tiles that the image has, a view."""
        first = row * self._tile_px
        return self._image[first : first + self._tile_px]

    def strip(self, y: Indices, x: Indices) -> RGBArray:
        """Return (tile_px, N * tile_px, 3) pixels of tiles, side by side.

        Args:
            y: (N,) rows of tiles.
            x: (N,) columns.
        """
        side = self._tile_px
        strip = np.empty((side, len(y), side, 3), np.uint8)
        for index, part in enumerate(_parts(self._image, y, x, side)):
            is_whole = part.shape[:2] == (side, side)
            strip[:, index] = part if is_whole else pad(part, (1, 1), side)
        return strip.reshape(side, -1, 3)

    def mean_colours(self) -> Matrix:
        """Return (rows, columns, 3) float64 mean colours of tiles, in whole steps of [0, 255]."""
        return self._colours.mean.astype(np.float64)

    def colour_range(self) -> tuple[Float32s, Float32s]:
        """Return (3, rows, columns) the middle, and half the range, of each colour in each tile."""
        low, high = (
            extreme.transpose(2, 0, 1).astype(np.float32)
            for extreme in (self._colours.low, self._colours.high)
        )
        half = np.float32(0.5)
        return (high + low) * half, (high - low) * half

    @cached_property
    def _colours(self) -> _Colours:
        """Mean and extreme colours of all tiles, from one walk through the image."""
        rows, columns = self._tiles_hw
        means, lows, highs = [], [], []
        for row in range(rows):
            pixels = self.row(row)
            means.append(cv2.resize(pixels, (columns, 1), interpolation=cv2.INTER_AREA))
            lows.append(np.minimum.reduce(pixels))
            highs.append(np.maximum.reduce(pixels))
        return _Colours(
            np.concatenate(means),
            self._over_columns(np.minimum, lows),
            self._over_columns(np.maximum, highs),
        )

    def _over_columns(
        self, extreme: np.ufunc, of_rows: list[npt.NDArray[np.uint8]]
    ) -> npt.NDArray[np.uint8]:
        """Return (rows, columns, 3) extremes of tiles from those of each of their columns."""
        rows, columns = self._tiles_hw
        by_place = np.stack(of_rows).reshape(rows, columns, self._tile_px, 3)
        found: npt.NDArray[np.uint8] = by_place[:, :, 0].copy()
        for place in range(1, self._tile_px):  # faster than to reduce an axis of few elements
            extreme(found, by_place[:, :, place], out=found)
        return found


def write_strip(target: npt.NDArray[Any], y: Indices, x: Indices, strip: npt.NDArray[Any]) -> None:
    """Write tiles that lie side by side into an array (H, W), without the pixels beyond it.

    Args:
        target: is written to.
        y: (N,) rows of tiles.
        x: (N,) columns.
        strip: (tile_px, N * tile_px).

    >>> target = np.zeros((2, 3), int)
    >>> write_strip(target, np.array([0]), np.array([1]), np.array([[1, 2], [3, 4]]))
    >>> target.tolist()
    [[0, 0, 1], [0, 0, 3]]
    """
    side = len(strip)
    for index, part in enumerate(_parts(target, y, x, side)):
        height, width = part.shape
        part[:] = strip[:height, index * side : index * side + width]


def _parts(
    array: npt.NDArray[Any], y: Indices, x: Indices, side: int
) -> Iterator[npt.NDArray[Any]]:
    """Yield views of tiles of an array (H, W, ...), without what is beyond it."""
    for top, left in zip((y * side).tolist(), (x * side).tolist(), strict=True):
        yield array[top : top + side, left : left + side]


def pad(values: npt.NDArray[Any], tiles_hw: tuple[int, int], tile_px: int) -> npt.NDArray[Any]:
    """Repeat the last row and column of an array up to so many whole tiles, in a new array.

    >>> pad(np.array([[1, 2, 3]], np.uint8), (1, 2), tile_px=2).tolist()
    [[1, 2, 3, 3], [1, 2, 3, 3]]
    """
    below, right = (n * tile_px - px for n, px in zip(tiles_hw, values.shape, strict=False))
    return np.asarray(cv2.copyMakeBorder(values, 0, below, 0, right, cv2.BORDER_REPLICATE))
