"""Fill the polygons of a data set, as the trainers of its format do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backend.dataset.labelled_image import BoolMask
from backend.label_studio.region_reader import Area, area_mask

#: Of all edges of a polygon with rows of pixels: it takes seconds to sort more.
_MAX_CROSSINGS: Final = 10_000_000


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
    mask = np.zeros(size_hw, np.bool_)
    for points in map(_checked, parts):
        percent = points * 100 / size_hw[::-1]
        mask |= area_mask(Area("polygonlabels", "", "", None, size_hw, {"points": percent}))
    return mask


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
        mask |= _even_odd(points, size_hw)
    return mask


def _even_odd(points: npt.NDArray[np.float64], size_hw: tuple[int, int]) -> BoolMask:
    """Count for each pixel the edges on the left of its centre: inside, their number is odd."""
    height, width = size_hw
    ends = np.roll(points, -1, axis=0)
    # Rows whose centres, at y + 0.5, an edge passes; the lower end belongs to the next edge.
    firsts, lasts = (np.ceil(each[:, 1].clip(0, height) - 0.5) for each in (points, ends))
    low, high = np.minimum(firsts, lasts).astype(int), np.maximum(firsts, lasts).astype(int)
    counts = high - low
    total = int(counts.sum())
    if total > _MAX_CROSSINGS:
        raise ValueError(f"an outline of it crosses {total} rows, more than {_MAX_CROSSINGS}")
    edges = np.repeat(np.arange(len(points)), counts)
    rows = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts) + low[edges]
    (x0, y0), (x1, y1) = points[edges].T, ends[edges].T
    crossings = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    columns = np.ceil(crossings.clip(0, width) - 0.5).astype(int)
    toggles = np.zeros((height, width + 1), np.uint8)
    np.bitwise_xor.at(toggles, (rows, columns), 1)
    return np.bitwise_xor.accumulate(toggles, axis=1)[:, :width].astype(np.bool_)


def _checked(points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if len(points) < 3:
        raise ValueError("a polygon of it has fewer than three points")
    checked = points.astype(np.float64)
    if not np.isfinite(checked).all():
        raise ValueError("a polygon of it has a number that is not finite")
    return checked
