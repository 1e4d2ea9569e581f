"""Where one direction of the upsampling runs straight, and the few lines that say all of it.

Along an axis the whole way from patches to original pixels is piecewise linear: it bends at patch
centres and at edges of windows only. So what lies between two bends follows from its two ends,
and a cell between two bends of the rows and two of the columns is bilinear in its four corners.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Values = npt.NDArray[np.floating[Any]]

#: A second difference of weights above this is a bend; far above rounding, far below a weight.
_BEND = 1e-9

#: So many lines are multiplied at once: fewer patches have a part in few lines.
_LINES = 64


@dataclass(frozen=True, eq=False)
class AxisUpsampling:
    """How one axis goes from patches to pixels, by way of the resized picture.

    Attributes:
        resized: (resized_px, windows * patches), the resized picture's pixels from the patches.
        image_px: original side in px.
    """

    resized: Matrix
    image_px: int

    @property
    def scale(self) -> float:
        """Pixels of the resized picture in one original pixel."""
        return len(self.resized) / self.image_px

    def positions(self, pixels: npt.NDArray[Any] | None = None) -> Matrix:
        """(N,) centres of original pixels, all by default, in px of the resized picture."""
        indices: npt.NDArray[Any] = np.arange(self.image_px) if pixels is None else pixels
        return np.asarray((indices + 0.5) * self.scale - 0.5, np.float64)

    def at(self, positions: Matrix) -> Matrix:
        """(N, windows * patches): linear between the resized pixels, constant outside them.

        This is bilinear resizing with ``align_corners=False``.

        >>> course = AxisUpsampling(np.eye(2), image_px=4)
        >>> course.at(course.positions()).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
        """
        inside = np.clip(positions, 0, len(self.resized) - 1)
        low = np.floor(inside).astype(np.intp)
        high = np.minimum(low + 1, len(self.resized) - 1)
        fraction = (inside - low)[:, None]
        between: Matrix = self.resized[low] * (1 - fraction) + self.resized[high] * fraction
        return between

    @cached_property
    def bends(self) -> Matrix:
        """(pieces + 1,) ascending positions between which all is linear; they hold all pixels."""
        padded = np.pad(self.resized, ((1, 1), (0, 0)), mode="edge")
        second = np.abs(np.diff(padded, n=2, axis=0)).max(axis=1)
        first, last = self.positions(np.array([0, self.image_px - 1]))
        ends = [min(first, 0.0), max(last, len(self.resized) - 1.0)]
        if ends[0] == ends[1]:  # one pixel made of one: a piece has a length all the same
            ends[1] += 1.0
        inner = np.flatnonzero(second > _BEND)
        return np.asarray(np.unique(np.concatenate([ends, inner])), np.float64)

    def lattice(self, piece_px: float) -> AxisPieces:
        """Cut the axis at its bends, and between them into pieces of `piece_px` at most."""
        bends = self.bends
        parts = np.ceil(np.diff(bends) / (self.scale * piece_px) - 1e-6).astype(int).clip(1)
        pieces = zip(bends[:-1], bends[1:], parts, strict=True)
        cuts = [np.linspace(low, high, count, endpoint=False) for low, high, count in pieces]
        ends = np.concatenate([*cuts, bends[-1:]])
        first_px = self._first_px(ends)
        length = np.diff(ends)
        offset = (self.positions(first_px[:-1]) - ends[:-1]) / length
        return AxisPieces(self.at(ends), first_px, offset, self.scale / length)

    def samples(self, spacing_px: Matrix) -> AxisSamples:
        """Points of which cubics make pixels; where that saves nothing, the pixels themselves.

        Args:
            spacing_px: (pieces,), how far points may be apart in each piece between two bends.
        """
        first_px = self._first_px(self.bends)
        parts, total = [], 0
        for start, stop, spacing in zip(first_px[:-1], first_px[1:], spacing_px, strict=True):
            size = stop - start
            count = max(4, int(np.ceil((size - 1) / max(spacing, 1.0))) + 1)
            count, weigh = (count, cubic) if count < size else (size, _each)
            indices, weights = weigh(np.linspace(0, max(count - 1, 0), size), count)
            parts.append((np.linspace(start, stop - 1, count), indices + total, weights))
            total += count
        points, indices, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
        return AxisSamples(self.at(self.positions(points)), indices, weights)

    def _first_px(self, ends: Matrix) -> Indices:
        """(pieces + 1,) the first pixel at or behind each end; the last piece takes the rest."""
        first_px = np.searchsorted(self.positions(), ends)
        first_px[-1] = self.image_px
        return first_px


@dataclass(frozen=True, eq=False)
class AxisPieces:
    """One axis cut into pieces, in each of which every upsampled value is linear.

    Attributes:
        lines: (pieces + 1, windows * patches), values on the pieces' ends from the patches.
        first_px: (pieces + 1,), piece i holds the pixels ``first_px[i]:first_px[i + 1]``, which
            may be none.
        offset: (pieces,), where the first pixel lies between the ends, in [0, 1].
        step: (pieces,), how far the next pixel is, in the same unit.
    """

    lines: Matrix
    first_px: Indices
    offset: Matrix
    step: Matrix

    def __len__(self) -> int:
        """Number of pieces."""
        return len(self.offset)

    @property
    def longest_px(self) -> int:
        """Pixels of the longest piece."""
        return int(np.diff(self.first_px).max())

    @cached_property
    def growth(self) -> Matrix:
        """(pieces, 2, 2): [value at the first pixel, growth a pixel] from the two ends' values."""
        weights = np.array([[1 - self.offset, self.offset], [-self.step, self.step]])
        return np.ascontiguousarray(weights.transpose(2, 0, 1))

    @cached_property
    def piece_of_px(self) -> Indices:
        """(image_px,) the piece of each pixel."""
        return np.repeat(np.arange(len(self)), np.diff(self.first_px))

    @cached_property
    def place_of_px(self) -> Indices:
        """(image_px,) how many pixels of its piece come before it."""
        return np.arange(self.first_px[-1]) - self.first_px[self.piece_of_px]


@dataclass(frozen=True, eq=False)
class AxisSamples:
    """Points along one axis from which a smooth function's pixels are interpolated.

    Attributes:
        lines: (points, windows * patches), values at the points from the patches.
        indices: (image_px, 4), the points that make a pixel.
        weights: (image_px, 4), with what weights; each row sums to 1.
    """

    lines: Matrix
    indices: Indices
    weights: Matrix

    def interpolate(self, values: Values, pixels: slice = slice(None)) -> Values:
        """(points, ...) values at the points -> (pixels, ...) values at the pixels."""
        if len(self.lines) == len(self.indices):  # the points are the pixels
            return values[pixels]
        indices, weights = self.indices[pixels], self.weights[pixels].astype(values.dtype)
        made: Values = values[indices[:, 0]] * weights[:, :1]
        for point in range(1, 4):
            made += values[indices[:, point]] * weights[:, point, None]
        return made


def sparse_parts(lines: Values) -> Iterator[tuple[slice, Indices, Values]]:
    """Split a matrix of lines, of which each takes few patches, into small dense ones.

    Args:
        lines: (n, windows * patches), neighbours take about the same patches.

    Yields:
        Which lines, the patches that they take, and (lines, patches) their weights.
    """
    for start in range(0, len(lines), _LINES):
        some = slice(start, start + _LINES)
        taken = np.flatnonzero(lines[some].any(axis=0))
        yield some, taken, lines[some, taken]


def cubic(at: Matrix, count: int) -> tuple[Indices, Matrix]:
    """The cubic through the four points next to each place (Lagrange), points at 0, 1, 2...

    Args:
        at: (N,) places in [0, count - 1].
        count: number of points, at least 4.

    Returns:
        (N, 4) indices of points and (N, 4) their weights; each row of these sums to 1.

    >>> indices, weights = cubic(np.array([1.5]), 4)
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


def _each(at: Matrix, count: int) -> tuple[Indices, Matrix]:
    """Each place is a point itself."""
    indices = np.repeat(at.astype(np.intp)[:, None], 4, axis=1)
    return indices, np.tile([1.0, 0.0, 0.0, 0.0], (len(at), 1))
