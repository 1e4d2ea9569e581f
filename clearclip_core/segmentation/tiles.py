"""Tiles, strips and bands of an image, in which it is worked on with little memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.upsampling import Indices, Matrix


def write_strip(
    target: npt.NDArray[Any], top: Indices, left: Indices, strip: npt.NDArray[Any]
) -> None:
    """Write squares into an array, without their pixels beyond it.

    Args:
        target: (H, W), C-contiguous; is written to.
        top: (N,) first rows of the squares, inside the array.
        left: (N,) first columns.
        strip: (side, N * side).

    >>> target = np.zeros((2, 3), int)
    >>> write_strip(target, np.array([0]), np.array([2]), np.array([[1, 2], [3, 4]]))
    >>> target.tolist()
    [[0, 0, 1], [0, 0, 3]]
    """
    side = len(strip)
    squares = strip.reshape(side, -1, side)
    if _are_inside(target, top, left, side):
        _lines(target, side)[np.arange(side)[:, None] + top, left] = squares
        return
    for index, (y, x) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        part = target[y : y + side, x : x + side]
        part[:] = squares[: part.shape[0], index, : part.shape[1]]


def _lines(array: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Return (H, W - length + 1, length): a view of as many numbers from each place of a row on."""
    height, width = array.shape
    shape, strides = (height, width - length + 1, length), (*array.strides, array.strides[1])
    return np.ndarray(shape, array.dtype, array, 0, strides)


def _are_inside(array: npt.NDArray[Any], top: Indices, left: Indices, side: int) -> bool:
    """Tell whether all squares lie inside an array."""
    height, width = array.shape[:2]
    return bool(top.max() <= height - side and left.max() <= width - side)


@dataclass(frozen=True)
class TileGrid:
    """Square tiles from the top left of an image on.

    Tiles at the right and at the bottom may reach beyond the image.

    Attributes:
        image_hw: size of the image in px.
        radius: half the side in tiles of the windows in which maps are fitted.

    >>> TileGrid((5, 9), tile_px=4, radius=1).tiles_hw
    (2, 3)
    """

    image_hw: tuple[int, int]
    tile_px: int
    radius: int

    @property
    def tiles_hw(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        height, width = self.image_hw
        return -(-height // self.tile_px), -(-width // self.tile_px)

    @property
    def centres_px(self) -> tuple[Matrix, Matrix]:
        """Rows and columns of the tiles' centres in px; pixel 0 has its centre at 0."""
        rows, columns = (np.arange(n, dtype=np.float64) + 0.5 for n in self.tiles_hw)
        return rows * self.tile_px - 0.5, columns * self.tile_px - 0.5

    @property
    def corners_px(self) -> tuple[Matrix, Matrix]:
        """Rows and columns of the tiles' corners in px; pixel 0 has its centre at 0."""
        rows, columns = (np.arange(n + 1, dtype=np.float64) for n in self.tiles_hw)
        return rows * self.tile_px - 0.5, columns * self.tile_px - 0.5


#: Tiles from this side on are cut: the pixels of smaller ones cost less than to bound their parts.
_CUT_FROM_PX = 32

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TileParts:
    """The squares of one size into which each tile is cut; one square where it is not.

    Two squares share a row or column of pixels where the tile's side is odd.

    >>> TileParts(33).starts_px, TileParts(33).side_px
    ((0, 16), 17)
    >>> TileParts(8).starts_px, TileParts(8).side_px
    ((0,), 8)
    """

    tile_px: int

    @property
    def side_px(self) -> int:
        """Side of a square."""
        return -(-self.tile_px // 2) if self.tile_px >= _CUT_FROM_PX else self.tile_px

    @property
    def starts_px(self) -> tuple[int, ...]:
        """Where the squares begin along a side of the tile."""
        return (0,) if self.side_px == self.tile_px else (0, self.tile_px - self.side_px)

    @property
    def offsets_px(self) -> tuple[Indices, Indices]:
        """(P,) rows and (P,) columns in the tile at which its P squares begin."""
        starts = np.array(self.starts_px)
        return np.repeat(starts, len(starts)), np.tile(starts, len(starts))

    @cached_property
    def corner_weights(self) -> Float32s:
        """(P, 4, 4) weights of the tile's corners in each corner of a square.

        What is bilinear in the tile is so in the squares.
        """
        starts = np.array(self.starts_px)
        ends = np.stack([starts, starts + self.side_px], axis=1) / self.tile_px  # (squares, 2)
        along = np.stack([1 - ends, ends], axis=2)  # (squares, ends, ends of the tile)
        weights: Float32s = np.einsum("aij,bkl->abikjl", along, along).astype(np.float32)
        return weights.reshape(-1, 4, 4)


class _Colours(NamedTuple):
    """What is known of the colours of all tiles.

    Attributes:
        mean: (rows, columns, 3) uint8.
        low: (rows, p, columns, p, 3) uint8, the least of each part, p along a side of a tile.
    """

    mean: npt.NDArray[np.uint8]
    low: npt.NDArray[np.uint8]
    high: npt.NDArray[np.uint8]


class ImageTiles:
    """The tiles of an image.

    Args:
        image: (H, W, 3) uint8 RGB.

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

        The image's last pixels are repeated in those that reach beyond it.

        Args:
            top: (N,) first rows of the squares in px, inside the image.
            left: (N,) first columns.
        """
        image = self._image
        if _are_inside(image, top, left, side):
            rows = np.arange(side)[:, None] + top
            read: RGBArray = _lines(image.reshape(len(image), -1), 3 * side)[rows, 3 * left]
            return read.reshape(side, -1, 3)
        strip = np.empty((side, len(top), side, 3), np.uint8)
        for index, (y, x) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
            part = image[y : y + side, x : x + side]
            missing = (0, side - part.shape[0]), (0, side - part.shape[1]), (0, 0)
            strip[:, index] = np.pad(part, missing, mode="edge")
        return strip.reshape(side, -1, 3)

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


class Scratch:
    """Float32 tensors on the CPU that are overwritten by the next of the same name."""

    def __init__(self) -> None:
        self._memory: dict[str, torch.Tensor] = {}
        self._shaped: dict[tuple[str, tuple[int, ...]], torch.Tensor] = {}

    def get(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Return a tensor of a shape, its numbers undefined.

        >>> scratch = Scratch()
        >>> scratch.get("values", (2, 3)).fill_(1.0).shape, scratch.get("values", (4,)).tolist()
        (torch.Size([2, 3]), [1.0, 1.0, 1.0, 1.0])
        """
        if (name, shape) not in self._shaped:
            count = prod(shape)
            if name not in self._memory or len(self._memory[name]) < count:
                self._memory[name] = torch.empty(count)
                # Those of the memory before would keep it alive.
                self._shaped = {key: each for key, each in self._shaped.items() if key[0] != name}
            self._shaped[name, shape] = self._memory[name][:count].view(shape)
        return self._shaped[name, shape]
