"""Fill the outlines of polygons and rotated rectangles, within a bound of work."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from backend.label_studio.region_writer import BoolMask

#: Fractional bits of the coordinates in which outlines are filled.
_SHIFT: Final = 4

#: Length of an outline inside its image, in px; OpenCV draws all of it.
_MAX_LENGTH_PX: Final = 10_000_000

#: Steps of `sorting_steps` for one outline: two billion take seconds.
_MAX_SORTING: Final = 2_000_000_000


def fill_outline(points_px: npt.NDArray[np.float64], mask: BoolMask) -> None:
    """Add the pixels inside an outline to a mask.

    Args:
        points_px: (P, 2) float64, x and y.
        mask: (H, W) bool; only pixels in the bounding box of the outline are touched.

    Raises:
        ValueError: a number is not finite, the outline is too long, or too many of its edges cross
            the same rows of pixels.
    """
    far = 2 * max(mask.shape)  # OpenCV overflows on larger numbers, and no pixels lie beyond
    points_px = check_finite(points_px).clip(-far, far)
    _check_work(points_px, mask.shape)
    centred = np.rint((points_px - 0.5) * (1 << _SHIFT)).astype(np.int32)  # 0 is a pixel's centre
    cv2.fillPoly(mask.view(np.uint8), [centred], 1, shift=_SHIFT)


def check_finite(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return points whose numbers are all finite.

    Raises:
        ValueError: one is not.
    """
    if not np.isfinite(points).all():
        raise ValueError("Expected a region's numbers to be finite, but got others.")
    return points


def outline_length_px(points_px: npt.NDArray[np.float64], size_hw: tuple[int, ...]) -> int:
    """Return the length of an outline (P, 2) inside its image, in px.

    Of each edge it is the longer one of its width and its height.

    >>> outline_length_px(np.array([[0, 0], [3, 0], [3, 2]]), (9, 9))
    8
    """
    inside = points_px.clip(0, size_hw[::-1])
    steps = np.abs(np.diff(inside, axis=0, append=inside[:1]))
    return int(steps.max(axis=1, initial=0).sum())


def sorting_steps(points_px: npt.NDArray[np.float64], size_hw: tuple[int, ...]) -> int:
    """Return the sum over the rows of pixels of the squared number of edges that cross a row.

    OpenCV keeps the edges of a row sorted by insertion; rows above the image count as well.

    >>> sorting_steps(np.array([[0, 0], [3, 0], [3, 2]]), (9, 9))
    8
    """
    rows = np.rint(points_px[:, 1]).clip(-2 * max(size_hw), size_hw[0]).astype(np.int64)
    rows -= rows.min(initial=0)
    ends = np.sort(np.stack([rows, np.roll(rows, -1)]), axis=0)  # (2, P): first and last row
    begun, ended = (np.bincount(each, minlength=rows.max(initial=0) + 1) for each in ends)
    return int(np.square(np.cumsum(begun - ended)).sum())


def _check_work(points_px: npt.NDArray[np.float64], size_hw: tuple[int, ...]) -> None:
    length = outline_length_px(points_px, size_hw)
    if length > _MAX_LENGTH_PX:
        raise ValueError(f"An outline is {length} pixels long, more than {_MAX_LENGTH_PX}.")
    sorting = sorting_steps(points_px, size_hw)
    if sorting > _MAX_SORTING:
        raise ValueError(
            f"The edges of an outline cross the same rows of pixels too often: {sorting} steps to "
            f"sort them, more than {_MAX_SORTING}."
        )
