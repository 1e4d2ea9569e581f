"""Fill the polygons of a data set, as the trainers of its format do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from backend.dataset.labelled_image import BoolMask
from backend.label_studio.shapes import check_crossings, fill_outline

_SHIFT: Final = 4  # fractional bits of the coordinates in which OpenCV fills


def fill_with_edges(parts: Iterable[npt.NDArray[Any]], size_hw: tuple[int, int]) -> BoolMask:
    """Fill polygons and the pixels that their edges touch, and unite them.

    Outlines that were traced along the centres of pixels, as those of YOLO's files, are masks
    again.

    Args:
        parts: (P, 2) x and y in px each, the upper left corner of the picture being 0, 0.
        size_hw: height and width of the picture in px.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: a polygon has fewer than three points or a number that is not finite, or goes
            up and down through too many rows.

    >>> corners = np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 1.5], [0.5, 1.5]])
    >>> fill_with_edges([corners], (2, 4)).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 0]])
    """
    canvas = np.zeros(size_hw, np.uint8)
    for points in map(_checked, parts):
        far = 2 * max(size_hw)  # OpenCV overflows on larger numbers, and no pixels lie beyond
        points = points.clip(-far, far)
        check_crossings(points, size_hw)
        centred = np.rint((points - 0.5) * (1 << _SHIFT)).astype(np.int32)  # 0 is a pixel's centre
        part = np.zeros(size_hw, np.uint8)
        cv2.fillPoly(part, [centred], 1, shift=_SHIFT)
        canvas |= part
    return canvas.astype(np.bool_)


def fill_centres(parts: Iterable[npt.NDArray[Any]], size_hw: tuple[int, int]) -> BoolMask:
    """Fill the pixels whose centres are inside of polygons (even-odd rule), and unite them.

    Outlines that run along the edges of pixels, as those of COCO's files, are masks again.

    Args:
        parts: see `fill_with_edges`.
        size_hw: height and width of the picture in px.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: see `fill_with_edges`.

    >>> corners = np.array([[1, 0], [4, 0], [4, 1], [1, 1]])
    >>> fill_centres([corners], (2, 4)).astype(int)
    array([[0, 1, 1, 1],
           [0, 0, 0, 0]])
    """
    mask = np.zeros(size_hw, np.bool_)
    for points in map(_checked, parts):
        part = np.zeros(size_hw, np.bool_)
        fill_outline(points, part)
        mask |= part
    return mask


def _checked(points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if len(points) < 3:
        raise ValueError("a polygon of it has fewer than three points")
    checked = points.astype(np.float64)
    if not np.isfinite(checked).all():
        raise ValueError("a polygon of it has a number that is not finite")
    return checked
