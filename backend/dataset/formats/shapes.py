"""Draw the shapes of other programs' files: rings of points, boxes, circles and ellipses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backend.errors import DatasetError
from backend.label_studio.region_reader import fill_outline
from clearclip_core import BoolMask

#: What reading a file raises that lacks a field, or has something else there.
BROKEN: Final = (
    AttributeError,
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    OverflowError,
    OSError,
)

_CORNERS: Final = 720  # of an ellipse
_LEAST_POINTS: Final = 3  # of a ring with an area


@contextmanager
def told_as_broken(where: str) -> Iterator[None]:
    """Raise what reading a shape raises as a `DatasetError` that names it."""
    try:
        yield
    except BROKEN as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else f"{error!s:.100}"
        raise DatasetError(f"{where} is broken, {why}.") from None


def points_of(given: Any) -> npt.NDArray[np.float64]:
    """Return points (P, 2), x and y in px, of pairs or of a flat list of numbers."""
    return np.array(given, np.float64).reshape(-1, 2)


def fill_rings(
    rings: Sequence[npt.NDArray[np.float64]],
    size_hw: tuple[int, int],
    holes: Sequence[npt.NDArray[np.float64]] = (),
) -> BoolMask:
    """Fill rings of points (P, 2), x and y in px, and take their holes out: (H, W) bool."""
    mask = np.zeros(size_hw, np.bool_)
    for ring in rings:
        if len(ring) >= _LEAST_POINTS:
            fill_outline(ring, mask)
    if holes:
        mask &= ~fill_rings(holes, size_hw)
    return mask


def box_ring(left: float, top: float, right: float, bottom: float) -> npt.NDArray[np.float64]:
    """Return the corners (4, 2) of a box in px."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def ellipse_ring(
    x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0
) -> npt.NDArray[np.float64]:
    """Return corners (P, 2) of an ellipse around a point in px, turned clockwise."""
    if not np.isfinite([x, y, radius_x, radius_y, degrees]).all():
        raise ValueError("its ellipse has a number that is not finite")
    angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    along, across = radius_x * np.cos(angles), radius_y * np.sin(angles)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.stack([x + along * cos - across * sin, y + along * sin + across * cos], axis=1)


def paste(part: BoolMask, left: int, top: int, size_hw: tuple[int, int]) -> BoolMask:
    """Return a mask (H, W) bool with a part at a place; a `ValueError` where it lies beyond."""
    mask = np.zeros(size_hw, np.bool_)
    place = mask[max(0, top) : top + part.shape[0], max(0, left) : left + part.shape[1]]
    if min(left, top) < 0 or place.shape != part.shape:
        raise ValueError("its mask lies beyond the picture")
    place |= part
    return mask


def draw_rows(runs: Sequence[int], size_hw: tuple[int, int]) -> BoolMask:
    """Draw runs, row by row and the first of them outside, as a mask (H, W) bool."""
    counts = np.array(runs, np.int64)
    if (counts < 0).any() or counts.sum() != size_hw[0] * size_hw[1]:
        raise ValueError(f"its runs do not make {size_hw[1]}×{size_hw[0]} px")
    return np.repeat(np.arange(counts.size) % 2 == 1, counts).reshape(size_hw)
