"""Squares of an array, many at once: they are read into a strip and written from one, side by side.

Squares inside the array are copied by one call, which lets other threads run meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

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
    inside = _inside(image, top, left, side)
    strip = np.empty((side, len(top), 3 * side), np.uint8)
    if len(inside):
        rows = np.arange(side)[:, None] + top[inside]
        lines = sliding_window_view(image.reshape(len(image), -1), 3 * side, axis=1)
        read = lines[rows, 3 * left[inside]]
        if len(inside) == len(top):
            return read.reshape(side, -1, 3)
        strip[:, inside] = read
    for index in _others(inside, len(top)):
        part = image[top[index] : top[index] + side, left[index] : left[index] + side]
        missing = (0, side - part.shape[0]), (0, side - part.shape[1]), (0, 0)
        strip[:, index] = np.pad(part, missing, mode="edge").reshape(side, -1)
    return strip.reshape(side, -1, 3)


def write_strip(
    target: npt.NDArray[Any], top: Indices, left: Indices, strip: npt.NDArray[Any]
) -> None:
    """Write squares into an array, without their pixels beyond it.

    Args:
        target: (H, W), is written to.
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
    inside = _inside(target, top, left, side)
    if len(inside):
        rows = np.arange(side)[:, None] + top[inside]
        lines = sliding_window_view(target, side, axis=1, writeable=True)
        whole = len(inside) == len(top)
        lines[rows, left[inside]] = squares if whole else squares[:, inside]
    for index in _others(inside, len(top)):
        part = target[top[index] : top[index] + side, left[index] : left[index] + side]
        part[:] = squares[: part.shape[0], index, : part.shape[1]]


def _inside(array: npt.NDArray[Any], top: Indices, left: Indices, side: int) -> Indices:
    """Return the indices of the squares that lie inside an array."""
    height, width = array.shape[:2]
    return np.flatnonzero((top <= height - side) & (left <= width - side))


def _others(inside: Indices, count: int) -> list[int]:
    """Return the indices of the other squares."""
    return np.setdiff1d(np.arange(count), inside).tolist() if len(inside) < count else []
