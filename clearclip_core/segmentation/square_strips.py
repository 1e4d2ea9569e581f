"""Squares of an array, many at once: they are read into a strip and written from one, side by side.

Where all of them lie inside the array, they are copied by one call, which lets other threads run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.upsampling import Indices


def read_strip(image: RGBArray, top: Indices, left: Indices, side: int) -> RGBArray:
    """Read squares of an image; its last pixels are repeated in those that reach beyond it.

    Args:
        image: (H, W, 3) uint8, C-contiguous.
        top: (N,) first rows of the squares, inside the image.
        left: (N,) first columns.
        side: rows and columns of a square.

    Returns:
        (side, N * side, 3).

    >>> image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    >>> read_strip(image, np.array([0]), np.array([1]), 2)[..., 0].tolist()
    [[3, 3], [9, 9]]
    """
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
