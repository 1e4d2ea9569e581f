"""Means of maps over square windows around values and around the corners between them."""

from __future__ import annotations

import cv2
import numpy as np

from clearclip_core.segmentation.upsampling import Matrix


class WindowMeans:
    """Means over the parts of square windows that lie inside a map.

    Args:
        size_hw: height and width of the map.
        radius: half the side of the windows, in values.
    """

    def __init__(self, size_hw: tuple[int, int], radius: int) -> None:
        self._around_values = (2 * radius + 1, 2 * radius + 1)
        self._around_corners = (2 * radius, 2 * radius)  # OpenCV's anchor is the value after it
        ones = np.ones((*size_hw, 1))
        self._shares = 1 / _box(ones, self._around_values)
        self._corner_shares = 1 / _box(_with_last_corner(ones), self._around_corners)

    def at_values(self, values: Matrix) -> Matrix:
        """Return (h, w, C) means over the window around each value."""
        means: Matrix = _box(values, self._around_values) * self._shares
        return means

    def at_corners(self, values: Matrix) -> Matrix:
        """Return (h + 1, w + 1, C) means over the window around each corner."""
        sums = _box(_with_last_corner(values), self._around_corners)
        means: Matrix = sums * self._corner_shares
        return means


def _with_last_corner(values: Matrix) -> Matrix:
    """(h, w, C) -> (h + 1, w + 1, C), zeros behind: one value for each corner."""
    return np.asarray(cv2.copyMakeBorder(values, 0, 1, 0, 1, cv2.BORDER_CONSTANT)).reshape(
        values.shape[0] + 1, values.shape[1] + 1, -1
    )


def _box(values: Matrix, side: tuple[int, int]) -> Matrix:
    """Return sums in windows, with zeros outside the map."""
    sums = cv2.boxFilter(values, -1, side, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(sums).reshape(values.shape)  # OpenCV drops a last axis of 1
