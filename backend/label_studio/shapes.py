"""Geometry of regions: ellipses, and the outlines of masks with their holes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from clearclip_core import BoolMask

OutlinePoints = npt.NDArray[np.int32]

#: Holes that are cut out of one island, the largest first; the others are filled.
MAX_HOLES: Final = 1000

#: Pixels that are looked at at once; each takes about forty bytes of memory meanwhile.
_BAND_PX: Final = 1 << 20


@dataclass(frozen=True)
class Ellipse:
    """An ellipse on an image.

    Attributes:
        x: of its centre, in px.
        y: of its centre, in px.
        a: half its first axis, in px.
        b: half its second axis, in px.
        angle: by which the first axis is turned clockwise from the rows, in radians.
        size_hw: height and width of the image, in px.
    """

    x: float
    y: float
    a: float
    b: float
    angle: float
    size_hw: tuple[int, int]

    @classmethod
    def read(cls, value: Mapping[str, Any], size_hw: tuple[int, int]) -> Ellipse:
        """Read the value of a region, whose numbers are percents and degrees."""
        height, width = size_hw
        x, y, radius_x, radius_y = (
            to_float(value[key]) for key in ("x", "y", "radiusX", "radiusY")
        )
        degrees = to_float(value.get("rotation", 0))
        in_px = [x * width, y * height, abs(radius_x) * width, abs(radius_y) * height]
        x, y, a, b = check_finite(np.array(in_px) / 100).tolist()
        (degrees,) = check_finite(np.array([degrees])).tolist()
        return cls(x, y, a, b, math.radians(degrees), size_hw)

    @property
    def box(self) -> tuple[slice, slice]:
        """The rows and columns of the image outside of which it covers no pixel.

        >>> Ellipse(5, 5, 2, 1, 0, (10, 20)).box
        (slice(3, 7, None), slice(2, 8, None))
        """
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        reach = math.hypot(self.a * sin, self.b * cos), math.hypot(self.a * cos, self.b * sin)
        rows, columns = (
            # A pixel more on each side, for what is rounded.
            slice(*(int(min(max(at, 0), side)) for at in (middle - far - 1, middle + far + 1)))
            for middle, far, side in zip((self.y, self.x), reach, self.size_hw, strict=True)
        )
        return rows, columns

    def fill(self, mask: BoolMask) -> None:
        """Add the pixels whose centres are inside to a mask (H, W) bool of the image."""
        if self.a == 0 or self.b == 0:
            return
        rows, columns = self.box
        height = max(1, _BAND_PX // max(1, columns.stop - columns.start))
        right = np.arange(columns.start, columns.stop) + 0.5 - self.x  # (W,)
        for top in range(rows.start, rows.stop, height):
            band = slice(top, min(top + height, rows.stop))
            down = (np.arange(band.start, band.stop) + 0.5 - self.y)[:, None]  # (H, 1)
            mask[band, columns] |= self._is_inside(right, down)

    def _is_inside(
        self, right: npt.NDArray[np.float64], down: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.bool_]:
        """Tell of pixels, by their distances (W,) and (H, 1) to the centre, whether they are in."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        with np.errstate(over="ignore"):  # far outside of a tiny one
            along, across = (cos * right + sin * down) / self.a, (cos * down - sin * right) / self.b
            inside: npt.NDArray[np.bool_] = np.square(along) + np.square(across) <= 1
        return inside


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
            "A region lies at a place that is no finite number. Delete it and draw it again."
        )
    return points


def check_crossings(points_px: npt.NDArray[np.float64], size_hw: tuple[int, ...]) -> int:
    """Return how many rows of pixels the edges of an outline (P, 2) cross, all together.

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


def trace_rings(island: BoolMask) -> tuple[OutlinePoints, list[OutlinePoints]]:
    """Return the rings that bound an island: the outer one, and one for each hole.

    OpenCV traces the centres of the pixels inside of an edge. Of an island of twice the size, each
    of them is half a pixel or none away from the corner of the pixel grid that it stands for.

    Args:
        island: (H, W) bool, one 8-connected component.

    Returns:
        (P, 2) int32 each: x and y of corners of the pixel grid, from 0, 0 to W, H. The outer ring
        turns one way and those of the holes the other.

    >>> outer, holes = trace_rings(np.array([[1, 1, 0], [1, 1, 1]], np.bool_))
    >>> outer.tolist(), holes
    ([[0, 0], [0, 2], [3, 2], [3, 1], [2, 1], [2, 0]], [])
    """
    doubled = island.view(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer: OutlinePoints | None = None
    holes: list[OutlinePoints] = []
    for contour, (_, _, _, parent) in zip(found, hierarchy[0].tolist(), strict=True):
        ring = corners_of((contour[:, 0] + 1) // 2)
        if parent < 0:
            outer = ring
        else:
            holes.append(ring)
    assert outer is not None, "an island has a pixel"
    return outer, holes


def simplify(ring: OutlinePoints, tolerance_px: float) -> OutlinePoints:
    """Leave points of a ring (P, 2) out that are within a tolerance of the lines between others.

    The algorithm is that of Douglas and Peucker (1973).

    Returns:
        (Q, 2) int32, of three points or more; the ring itself where fewer would be left.
    """
    kept: OutlinePoints = cv2.approxPolyDP(ring[:, None], tolerance_px, True)[:, 0].astype(np.int32)
    return kept if len(kept) >= 3 else ring


def join_rings(outer: OutlinePoints, holes: Iterable[OutlinePoints]) -> OutlinePoints:
    """Join an outer ring with those of its holes: there and back along the shortest way to each.

    Args:
        outer: (P, 2).
        holes: (Q, 2) each, turning the other way.

    Returns:
        (R, 2) int32, one closed ring.
    """
    largest = sorted(holes, key=lambda hole: -cv2.contourArea(hole))[:MAX_HOLES]
    ring = outer
    for hole in largest:
        near, far = _shortest_cut(ring, hole)
        around = np.concatenate([hole[far:], hole[: far + 1]])
        ring = np.concatenate([ring[: near + 1], around, ring[near:]])
    return ring


def corners_of(ring: npt.NDArray[Any]) -> OutlinePoints:
    """Leave points of a ring (P, 2) out that repeat the one before, or lie between two others.

    Returns:
        (Q, 2) int32; one point where all are equal.
    """
    points = ring[(ring != _turned(ring, 1)).any(axis=1)]
    before, after = points - _turned(points, 1), _turned(points, -1) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    turns_back = (before * after).sum(axis=1) < 0
    corners: OutlinePoints = points[turns | turns_back].astype(np.int32)
    return corners if len(corners) else ring[:1].astype(np.int32)


def _turned(ring: npt.NDArray[Any], by: int) -> npt.NDArray[Any]:
    """Do what `numpy.roll` does along the first axis, six times faster for short rings."""
    return np.concatenate([ring[-by:], ring[:-by]])


def _shortest_cut(ring: OutlinePoints, hole: OutlinePoints) -> tuple[int, int]:
    """Return indices of a point of each that are near to each other.

    Nearest points are looked for in turn, which needs no table of all distances.
    """
    near, far = 0, 0
    for _ in range(3):
        near = int(np.square(ring.astype(np.int64) - hole[far]).sum(axis=1).argmin())
        far = int(np.square(hole.astype(np.int64) - ring[near]).sum(axis=1).argmin())
    return near, far


def to_float(value: Any) -> float:
    """Return a number of a region's geometry.

    Raises:
        TypeError: it is none, such as a text.
    """
    try:
        return float(value)
    except ValueError:
        raise TypeError(f"{value!r:.50} is no number") from None
