"""Upsampling from patches to original pixels.

Along an axis the upsampling is piecewise linear: its slope changes only at patch centres and at
edges of windows. So a cell between two breakpoints of the rows and two of the columns is bilinear
in its four corners.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

Matrix = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Values = npt.NDArray[np.floating[Any]]

#: A second difference of weights above this is a breakpoint: far above rounding errors, and far
#: below a weight.
_MIN_BEND = 1e-9

#: Points between two knots at which interpolated values are compared with the upsampling.
_POINTS_PER_KNOT = 8

#: Rows of a block of `dense_blocks`: the fewer rows, the fewer patches have a weight in them.
_BLOCK_ROWS = 64


@dataclass(frozen=True, eq=False)
class AxisUpsampling:
    """The linear upsampling of one axis: patches -> resized image -> original image."""

    resized: Matrix  # (resized_px, windows * patches), weights of patches in pixels
    image_px: int  # original side in px

    @property
    def scale(self) -> float:
        """Pixels of the resized image in one original pixel."""
        return len(self.resized) / self.image_px

    def positions(self, pixels: npt.NDArray[Any] | None = None) -> Matrix:
        """Return (N,) centres of original pixels in px of the resized image; all by default."""
        indices: npt.NDArray[Any] = np.arange(self.image_px) if pixels is None else pixels
        return np.asarray((indices + 0.5) * self.scale - 0.5, np.float64)

    def at(self, positions: Matrix) -> Matrix:
        """Return the weights of the patches at positions of the resized image.

        They are linear between the resized pixels and constant outside them: bilinear resizing
        with ``align_corners=False``.

        Args:
            positions: (N,) in px of the resized image.

        Returns:
            (N, windows * patches).

        >>> axis = AxisUpsampling(np.eye(2), image_px=4)
        >>> axis.at(axis.positions()).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
        """
        inside = np.clip(positions, 0, len(self.resized) - 1)
        low = np.floor(inside).astype(np.intp)
        high = np.minimum(low + 1, len(self.resized) - 1)
        fraction = (inside - low)[:, None]
        between: Matrix = self.resized[low] * (1 - fraction) + self.resized[high] * fraction
        return between

    def at_knots(self, ends_px: Matrix) -> Matrix:
        """Return the weights of the patches in values between which pixels are interpolated.

        Interpolated linearly, the values come nearest to the upsampling (least squares). Values of
        the upsampling itself would cut off its peaks that lie between the knots.

        Args:
            ends_px: (N,) ascending knots in px, at equal distances; pixel 0 has its centre at 0.
                All pixels lie between the first and the last.

        Returns:
            (N, windows * patches).
        """
        points = np.linspace(ends_px[0], ends_px[-1], _POINTS_PER_KNOT * (len(ends_px) - 1) + 1)
        place = np.linspace(0, len(ends_px) - 1, len(points))
        weights = np.maximum(1 - np.abs(place - np.arange(len(ends_px))[:, None]), 0)
        nearest = np.linalg.solve(weights @ weights.T, weights @ self.at(self.positions(points)))
        return np.asarray(nearest)

    @cached_property
    def breakpoints(self) -> Matrix:
        """(pieces + 1,) ascending positions between which all weights are linear.

        The first and the last enclose all pixels.
        """
        padded = np.pad(self.resized, ((1, 1), (0, 0)), mode="edge")
        second = np.abs(np.diff(padded, n=2, axis=0)).max(axis=1)
        first, last = self.positions(np.array([0, self.image_px - 1]))
        ends = [min(first, 0.0), max(last, len(self.resized) - 1.0)]
        if ends[0] == ends[1]:  # one pixel made of one: a piece needs a length above 0
            ends[1] += 1.0
        inner = np.flatnonzero(second > _MIN_BEND)
        return np.asarray(np.unique(np.concatenate([ends, inner])), np.float64)

    def cells(self, most_px: float) -> AxisCells:
        """Cut the axis at its breakpoints, and between them into cells of at most `most_px`."""
        breakpoints = self.breakpoints
        parts = np.ceil(np.diff(breakpoints) / (self.scale * most_px) - 1e-6).astype(int).clip(1)
        pieces = zip(breakpoints[:-1], breakpoints[1:], parts, strict=True)
        cuts = [np.linspace(low, high, count, endpoint=False) for low, high, count in pieces]
        ends = np.concatenate([*cuts, breakpoints[-1:]])
        return AxisCells.of(self.at(ends), ends, self.positions())

    def samples(self, spacing_px: Matrix) -> AxisSamples:
        """Choose the points from which cubics interpolate the pixels.

        Where that saves nothing, the points are the pixels themselves.

        Args:
            spacing_px: (pieces,), largest distance of two points between each two breakpoints.
        """
        first_px = _first_px(self.breakpoints, self.positions())
        parts, total = [], 0
        for start, stop, spacing in zip(first_px[:-1], first_px[1:], spacing_px, strict=True):
            size = stop - start
            count = max(4, int(np.ceil((size - 1) / max(spacing, 1.0))) + 1)
            count, interpolate = (count, lagrange_cubic) if count < size else (size, _identity)
            points, weights = interpolate(np.linspace(0, max(count - 1, 0), size), count)
            parts.append((np.linspace(start, stop - 1, count), points + total, weights))
            total += count
        places, points, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
        row_ends = np.arange(0, points.size + 1, 4)
        cubics = csr_array((weights.ravel(), points.ravel(), row_ends), (self.image_px, total))
        cubics.eliminate_zeros()
        return AxisSamples(self.at(self.positions(places)), cubics)


@dataclass(frozen=True, eq=False)
class AxisCells:
    """One axis of an image, cut into cells in which every value is linear."""

    matrix: Matrix  # (cells + 1, n), weights of n given values at the cells' ends
    first_px: Indices  # (cells + 1,), cell i holds the pixels ``first_px[i]:first_px[i + 1]``
    fractions: Matrix  # (image_px,), where each pixel is between the ends of its cell, in [0, 1]

    @classmethod
    def of(cls, matrix: Matrix, ends: Matrix, pixels: Matrix) -> AxisCells:
        """Assign pixels to cells.

        Args:
            ends: (cells + 1,) ascending; they enclose all pixels.
            pixels: (image_px,) centres of the pixels, in the unit of the ends.
        """
        first_px = _first_px(ends, pixels)
        cell = np.repeat(np.arange(len(ends) - 1), np.diff(first_px))
        return cls(matrix, first_px, (pixels - ends[cell]) / np.diff(ends)[cell])

    def part(self, pixels: slice) -> AxisCells:
        """Return the cells of some pixels alone, from the first one of a cell to the last of one.

        Args:
            pixels: their slice; both ends are given.
        """
        first, last = np.searchsorted(self.first_px, (pixels.start, pixels.stop)).tolist()
        ends = slice(first, last + 1)
        first_px = self.first_px[ends] - pixels.start
        return AxisCells(self.matrix[ends], first_px, self.fractions[pixels])

    @cached_property
    def sizes_px(self) -> Indices:
        """(cells,) pixels of each cell."""
        return np.diff(self.first_px)


def _first_px(ends: Matrix, pixels: Matrix) -> Indices:
    """Return (pieces + 1,) the first pixel at or after each end of a piece."""
    first_px = np.searchsorted(pixels, ends)
    first_px[-1] = len(pixels)
    return first_px


class AxisSamples(NamedTuple):
    """Points along one axis from which a smooth function's pixels are interpolated."""

    matrix: Matrix  # (points, windows * patches), weights of the patches at the points
    cubics: csr_array  # (image_px, points), weights of the points in each pixel; each row sums to 1


def upsample(values: Values, rows: Values, columns: Values) -> Values:
    """Upsample maps (h, ..., w) along both axes by weights (m, h) and (n, w): (m, ..., n)."""
    used = np.flatnonzero(rows.any(axis=0))
    some = slice(used[0], used[-1] + 1)  # a few rows of pixels have weights for few patches
    bands = rows[:, some] @ values[some].reshape(some.stop - some.start, -1)
    bands = bands.reshape(-1, values.shape[-1])
    upsampled = np.empty((len(bands), len(columns)), values.dtype)
    for some, patches, weights in dense_blocks(columns):
        np.matmul(bands.take(patches, axis=1), weights.T, out=upsampled[:, some])
    return upsampled.reshape(-1, *values.shape[1:-1], len(columns))


def dense_blocks(matrix: Values) -> Iterator[tuple[slice, Indices, Values]]:
    """Split an upsampling matrix, whose rows are sparse, into small dense ones.

    Args:
        matrix: (n, windows * patches); neighbouring rows have weights for about the same patches.

    Yields:
        The rows of the block, the patches with weights in them, and (rows, patches) the weights.
    """
    for start in range(0, len(matrix), _BLOCK_ROWS):
        some = slice(start, start + _BLOCK_ROWS)
        patches = np.flatnonzero(matrix[some].any(axis=0))
        yield some, patches, matrix[some, patches]


def lagrange_cubic(at: Matrix, count: int) -> tuple[Indices, Matrix]:
    """Interpolate by the cubic through the four nearest points (Lagrange), points at 0, 1, 2...

    Args:
        at: (N,) positions in [0, count - 1].
        count: number of points, at least 4.

    Returns:
        (N, 4) indices of points and (N, 4) their weights; each row of weights sums to 1.

    >>> indices, weights = lagrange_cubic(np.array([1.5]), 4)
    >>> indices.tolist(), weights.tolist()
    ([[0, 1, 2, 3]], [[-0.0625, 0.5625, 0.5625, -0.0625]])
    """
    first = np.clip(np.floor(at).astype(np.intp) - 1, 0, count - 4)
    x = at - first
    weights = np.ones((len(at), 4))
    for point in range(4):
        for other in {0, 1, 2, 3} - {point}:
            weights[:, point] *= (x - other) / (point - other)
    return first[:, None] + np.arange(4), weights


def _identity(at: Matrix, count: int) -> tuple[Indices, Matrix]:
    """Interpolate where each position is itself a point."""
    indices = np.repeat(at.astype(np.intp)[:, None], 4, axis=1)
    return indices, np.tile([1.0, 0.0, 0.0, 0.0], (len(at), 1))


#: A batch holds about this many values, which fit into the cache of one CPU core.
BATCH_ELEMENTS = 1 << 19
