"""Fill the outlines of polygons and rotated rectangles, within a bound of work."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from clearclip_core import BoolMask

#: Rows of pixels that the edges of an outline may cross, all edges together. Each takes about a
#: tenth of a microsecond, and 60 bytes of memory while the outline is filled.
_MAX_CROSSINGS: Final = 5_000_000


class _Edges(NamedTuple):
    """The edges of an outline, and the rows whose centres they pass.

    Attributes:
        starts: (P, 2) float64, x and y.
        ends: (P, 2) float64.
        first: (P,) intp, the first row that an edge passes; the lower end belongs to the next edge.
        counts: (P,) intp, how many rows it passes.
    """

    starts: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]
    first: npt.NDArray[np.intp]
    counts: npt.NDArray[np.intp]


def fill_outline(points_px: npt.NDArray[np.float64], mask: BoolMask) -> None:
    """Add the pixels whose centres lie inside an outline to a mask.

    Where the outline crosses itself, the even-odd rule holds. OpenCV would also fill the pixels
    that the outline touches, which makes each region half a pixel wider on all sides.

    Args:
        points_px: (P, 2) float64, x and y.
        mask: (H, W) bool; only pixels in the bounding box of the outline are touched.

    Raises:
        ValueError: a number is not finite, or the edges cross too many rows of pixels.
    """
    starts, ends, first, counts = _edges(points_px, mask.shape)
    crossings = _count(counts)
    if not crossings:
        return
    edges = np.repeat(np.arange(len(starts)), counts)
    rows = np.arange(crossings) - np.repeat(np.cumsum(counts) - counts, counts) + first[edges]
    (x0, y0), (x1, y1) = starts[edges].T, ends[edges].T
    xs = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
    columns = np.ceil(xs.clip(0, mask.shape[1]) - 0.5).astype(np.intp)
    top, left = rows.min(), columns.min()
    bottom, right = rows.max() + 1, columns.max()
    inside = np.zeros((bottom - top, right - left + 1), np.uint8)
    np.bitwise_xor.at(inside, (rows - top, columns - left), 1)  # where it begins, and ends
    np.bitwise_xor.accumulate(inside, axis=1, out=inside)
    mask[top:bottom, left:right] |= inside[:, :-1].view(np.bool_)


def check_finite(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return points whose numbers are all finite.

    Raises:
        ValueError: one is not.
    """
    if not np.isfinite(points).all():
        raise ValueError(
            "A region lies at a place that is no finite number. Delete it and draw it anew."
        )
    return points


def check_crossings(points_px: npt.NDArray[np.float64], size_hw: tuple[int, ...]) -> int:
    """Return how many rows of pixels the edges of an outline (P, 2) cross, all together.

    Raises:
        ValueError: a number is not finite, or they are too many to fill the outline.

    >>> check_crossings(np.array([[0.0, 0], [3, 0], [3, 2]]), (9, 9))
    4
    """
    return _count(_edges(points_px, size_hw).counts)


def _count(counts: npt.NDArray[np.intp]) -> int:
    crossings = int(counts.sum())
    if crossings > _MAX_CROSSINGS:
        raise ValueError(
            f"A polygon is too jagged: its edges cross {crossings} rows of pixels, more than "
            f"{_MAX_CROSSINGS}. Draw it with fewer points, or as a brush region."
        )
    return crossings


def _edges(points_px: npt.NDArray[np.float64], size_hw: tuple[int, ...]) -> _Edges:
    far = 2 * max(size_hw)  # products of larger numbers overflow, and no pixels lie beyond
    starts = check_finite(points_px).clip(-far, far)
    ends = np.roll(starts, -1, axis=0)
    one, other = (
        np.ceil(each[:, 1].clip(0, size_hw[0]) - 0.5).astype(np.intp) for each in (starts, ends)
    )
    first = np.minimum(one, other)
    return _Edges(starts, ends, first, np.maximum(one, other) - first)
