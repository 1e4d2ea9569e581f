"""Trace the outline of an island along the edges of its pixels, and cut its holes out of it.

A polygon of Label Studio or of a YOLO file is one closed ring, which has no holes of its own. The
ring of `join_rings` runs along a cut to each hole, around it the other way and back along the cut,
which has no width. Readers that fill by the even-odd rule or by a nonzero winding number leave
the holes out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

BoolMask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.int32]

#: Holes that are cut out of one island, the largest first; the others are filled.
MAX_HOLES: Final = 1000


def trace_rings(island: BoolMask) -> tuple[Points, list[Points]]:
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
    outer: Points | None = None
    holes: list[Points] = []
    for contour, (_, _, _, parent) in zip(found, hierarchy[0].tolist(), strict=True):
        ring = _corners((contour[:, 0] + 1) // 2)
        if parent < 0:
            outer = ring
        else:
            holes.append(ring)
    assert outer is not None, "an island has a pixel"
    return outer, holes


def simplify(ring: Points, tolerance_px: float) -> Points:
    """Leave points of a ring (P, 2) out that are within a tolerance of the lines between others.

    The algorithm is that of Douglas and Peucker (1973).

    Returns:
        (Q, 2) int32, of three points or more; the ring itself where fewer would be left.
    """
    kept: Points = cv2.approxPolyDP(ring[:, None], tolerance_px, True)[:, 0].astype(np.int32)
    return kept if len(kept) >= 3 else ring


def join_rings(outer: Points, holes: Iterable[Points]) -> Points:
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


def _corners(points: npt.NDArray[Any]) -> Points:
    """Leave points out that repeat the one before, or lie on a line between their neighbours."""
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    turns_back = (before * after).sum(axis=1) < 0
    corners: Points = points[turns | turns_back].astype(np.int32)
    return corners


def _shortest_cut(ring: Points, hole: Points) -> tuple[int, int]:
    """Return indices of a point of each that are near to each other.

    Nearest points are looked for in turn, which needs no table of all distances.
    """
    near, far = 0, 0
    for _ in range(3):
        near = int(np.square(ring.astype(np.int64) - hole[far]).sum(axis=1).argmin())
        far = int(np.square(hole.astype(np.int64) - ring[near]).sum(axis=1).argmin())
    return near, far
