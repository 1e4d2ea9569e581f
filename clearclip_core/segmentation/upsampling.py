"""Upsampling from patches to original pixels, and the exact argmax over all queries.

Along an axis the upsampling is piecewise linear: its slope changes only at patch centres and at
edges of windows. So a cell between two breakpoints of the rows and two of the columns is bilinear
in its four corners, and every value in it a convex combination of them. A query that wins all four
corners wins the cell. In any other cell only those queries can win whose largest corner reaches
the smallest corner of some query. Few pixels are left to compute, and the result is that of
comparing all queries at every pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

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
    """The linear upsampling of one axis: patches -> resized image -> original image.

    Attributes:
        resized: (resized_px, windows * patches), weights of the patches in each pixel of the
            resized image.
        image_px: original side in px.
    """

    resized: Matrix
    image_px: int

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

    def pieces(self, piece_px: float) -> AxisPieces:
        """Cut the axis at its breakpoints, and between them into pieces of at most `piece_px`."""
        breakpoints = self.breakpoints
        parts = np.ceil(np.diff(breakpoints) / (self.scale * piece_px) - 1e-6).astype(int).clip(1)
        pieces = zip(breakpoints[:-1], breakpoints[1:], parts, strict=True)
        cuts = [np.linspace(low, high, count, endpoint=False) for low, high, count in pieces]
        ends = np.concatenate([*cuts, breakpoints[-1:]])
        first_px = self._first_px(ends)
        length = np.diff(ends)
        offset = (self.positions(first_px[:-1]) - ends[:-1]) / length
        return AxisPieces(self.at(ends), first_px, offset, self.scale / length)

    def samples(self, spacing_px: Matrix) -> AxisSamples:
        """Choose the points from which cubics interpolate the pixels.

        Where that saves nothing, the points are the pixels themselves.

        Args:
            spacing_px: (pieces,), largest distance of two points between each two breakpoints.
        """
        first_px = self._first_px(self.breakpoints)
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

    def _first_px(self, ends: Matrix) -> Indices:
        """Return (pieces + 1,) the first pixel at or after each end of a piece."""
        first_px = np.searchsorted(self.positions(), ends)
        first_px[-1] = self.image_px
        return first_px


@dataclass(frozen=True, eq=False)
class AxisPieces:
    """One axis cut into pieces, in each of which every upsampled value is linear.

    Attributes:
        matrix: (pieces + 1, windows * patches), weights of the patches at the pieces' ends.
        first_px: (pieces + 1,), piece i holds the pixels ``first_px[i]:first_px[i + 1]``, which
            may be none.
        offset: (pieces,), position of the first pixel in the piece, in lengths of the piece,
            in [0, 1].
        step: (pieces,), distance of two pixels in lengths of the piece.
    """

    matrix: Matrix
    first_px: Indices
    offset: Matrix
    step: Matrix

    def __len__(self) -> int:
        """Number of pieces."""
        return len(self.offset)

    @property
    def longest_px(self) -> int:
        """Number of pixels of the longest piece."""
        return int(np.diff(self.first_px).max())

    @cached_property
    def start_and_slope(self) -> Matrix:
        """(pieces, 2, 2) matrices: values at the two ends -> [value at the first pixel, slope].

        The slope is the difference of two neighbouring pixels.
        """
        weights = np.array([[1 - self.offset, self.offset], [-self.step, self.step]])
        return np.ascontiguousarray(weights.transpose(2, 0, 1))

    @cached_property
    def piece_of_px(self) -> Indices:
        """(image_px,) the piece that holds each pixel."""
        return np.repeat(np.arange(len(self)), np.diff(self.first_px))

    @cached_property
    def index_in_piece(self) -> Indices:
        """(image_px,) the index of each pixel among those of its piece."""
        return np.arange(self.first_px[-1]) - self.first_px[self.piece_of_px]


class AxisSamples(NamedTuple):
    """Points along one axis from which a smooth function's pixels are interpolated.

    Attributes:
        matrix: (points, windows * patches), weights of the patches at the points.
        cubics: (image_px, points), weights of the points in each pixel; each row sums to 1.
    """

    matrix: Matrix
    cubics: csr_array


def upsample(values: Values, rows: Values, columns: Values) -> Values:
    """Upsample maps along both axes: (m, n, Q).

    Args:
        values: (h, w, Q).
        rows: (m, h), weights for the rows.
        columns: (n, w), weights for the columns.
    """
    _, width, queries = values.shape
    used = np.flatnonzero(rows.any(axis=0))
    some = slice(used[0], used[-1] + 1)  # a few rows of pixels have weights for few patches
    bands = rows[:, some] @ values[some].reshape(some.stop - some.start, -1)
    bands = bands.reshape(-1, width, queries)
    upsampled = np.empty((len(rows), len(columns), queries), values.dtype)
    for some, patches, weights in dense_blocks(columns):
        np.matmul(weights, bands[:, patches], out=upsampled[:, some])
    return upsampled


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


def candidate_batches(
    possible: npt.NDArray[np.bool_], values_per_cell: int, most_cells: int | None = None
) -> Iterator[tuple[Indices, Indices]]:
    """Batch cells that have about the same number of candidates.

    Args:
        possible: (N, Q) bool, whether candidate q can win somewhere in a cell; at least one can in
            each cell.
        values_per_cell: values that a cell has for each candidate. It sets the size of a batch.
        most_cells: most cells of a batch; any number by default.

    Yields:
        (n,) indices of cells, and (n, K) their candidates in ascending order. Where a cell has
        fewer than K, its last candidate is repeated.
    """
    _, candidates = np.nonzero(possible)
    counts = possible.sum(axis=1)
    starts = np.cumsum(counts) - counts
    order = np.argsort(counts, kind="stable")
    done, most_cells = 0, most_cells or len(order)
    while done < len(order):
        # At most a quarter more candidates than the cell with the fewest, to waste few values.
        most = counts[order[done]] * 5 // 4 + 1
        stop = int(np.searchsorted(counts[order], most, side="right"))
        stop = min(stop, done + max(1, BATCH_ELEMENTS // int(most * values_per_cell)))
        stop = min(stop, done + most_cells)
        cells = order[done:stop]
        rank = np.minimum(np.arange(counts[cells].max()), counts[cells, None] - 1)
        yield cells, candidates[starts[cells, None] + rank]
        done = stop


def first_maximum(values: Values) -> tuple[npt.NDArray[np.unsignedinteger[Any]], Values]:
    """Return the index of the largest of K values at each place, and that value.

    Of equal values the first wins.

    Args:
        values: (K, ...).
    """
    largest = values[0].copy()
    better = np.empty(largest.shape, np.bool_)
    # The winner is the last one that was better than all before it, so its index is the largest.
    winner = np.zeros(largest.shape, np.min_scalar_type(len(values) - 1))
    for index in range(1, len(values)):
        np.greater(values[index], largest, out=better)
        np.maximum(largest, values[index], out=largest)
        # To copy the index where it is better takes a branch a pixel.
        np.maximum(winner, better.view(np.uint8) * winner.dtype.type(index), out=winner)
    return winner, largest


Number = TypeVar("Number", bound=np.generic)

#: Largest side of a cell in px. In larger cells more queries can win; smaller cells have more
#: corners to compute.
CELL_PX = 12.0

#: A query this much below the certain minimum is compared all the same: corners are rounded.
_MARGIN = 1e-6


@dataclass(frozen=True, eq=False)
class Band:
    """The argmax in some rows of the original image.

    Attributes:
        labels: (r, W) int16, the label of the winning query.
        cosines: (r, W), the cosine of the winning query; empty where it was not asked for.
    """

    rows: slice
    labels: npt.NDArray[np.int16]
    cosines: Values


class ArgmaxBands:
    """The winning query of each pixel, in bands of rows.

    Args:
        cosines: (h, w, Q), the windows' patch maps side by side.
        query_labels: (Q,) int16, the label that the result holds for each query.
    """

    def __init__(
        self,
        cosines: Values,
        query_labels: npt.NDArray[np.int16],
        rows: AxisUpsampling,
        columns: AxisUpsampling,
    ) -> None:
        self._cosines, self._query_labels = cosines, query_labels
        self._dtype = cosines.dtype
        self._rows, self._columns = rows.pieces(CELL_PX), columns.pieces(CELL_PX)
        self._tile_hw = self._rows.longest_px, self._columns.longest_px
        y, x = np.mgrid[: self._tile_hw[0], : self._tile_hw[1]]
        # All tiles have the size of the largest cell; what lies outside a smaller one is not read.
        self._monomials = np.stack([y**0, x, y, y * x]).reshape(4, -1).astype(self._dtype)

    def bands(self, with_cosines: bool) -> Iterator[Band]:
        """Yield all rows of the image, band by band."""
        values = len(self._columns.matrix) * len(self._query_labels)
        pixels = int(self._columns.first_px[-1]) * self._tile_hw[0]
        step = max(1, BATCH_ELEMENTS // max(values, pixels))
        for start in range(0, len(self._rows), step):
            yield self._band(slice(start, min(start + step, len(self._rows))), with_cosines)

    def _band(self, pieces: slice, with_cosines: bool) -> Band:
        matrices = self._rows.matrix[pieces.start : pieces.stop + 1], self._columns.matrix
        corners = upsample(self._cosines, *(matrix.astype(self._dtype) for matrix in matrices))
        best = corners.argmax(axis=2)
        first = best[:-1, :-1]
        agreed = (first == best[1:, :-1]) & (first == best[:-1, 1:]) & (first == best[1:, 1:])
        labels, peaks = self._uniform_tiles(corners, pieces.start, first, with_cosines)
        y, x = np.nonzero(~agreed)
        for some_y, some_x, queries in _ambiguous_cells(corners, y, x, self._monomials.shape[1]):
            values = self._tiles(corners, pieces.start, some_y, some_x, queries)
            winner, peak = first_maximum(values.swapaxes(0, 1))  # (cells, tile) each
            own = np.take_along_axis(self._query_labels[queries], winner.astype(np.intp), axis=1)
            labels[some_y, :, some_x] = own.reshape(-1, *self._tile_hw)
            if with_cosines:
                peaks[some_y, :, some_x] = peak.reshape(-1, *self._tile_hw)
        rows = slice(int(self._rows.first_px[pieces.start]), int(self._rows.first_px[pieces.stop]))
        cosines = self._pixels(peaks, rows, pieces.start) if with_cosines else peaks
        return Band(rows, self._pixels(labels, rows, pieces.start), cosines)

    def _uniform_tiles(
        self, corners: Values, start: int, queries: Indices, with_cosines: bool
    ) -> tuple[npt.NDArray[np.int16], Values]:
        """Fill a tile for each cell as if one query won all of it.

        Returns:
            (rows, tile, columns, tile) labels, and cosines or an empty array.
        """
        shape = (len(queries), self._tile_hw[0], queries.shape[1], self._tile_hw[1])
        labels = np.empty(shape, np.int16)
        labels[:] = self._query_labels[queries][:, None, :, None]
        peaks = np.empty(shape if with_cosines else (*shape[:3], 0), self._dtype)
        if with_cosines:
            y, x = np.indices(queries.shape).reshape(2, -1)
            tiles = self._tiles(corners, start, y, x, queries.reshape(-1, 1))
            peaks.transpose(0, 2, 1, 3)[:] = tiles.reshape(*queries.shape, *self._tile_hw)
        return labels, peaks

    def _tiles(
        self, corners: Values, start: int, y: Indices, x: Indices, queries: Indices
    ) -> Values:
        """Return (cells, K, tile) cosines of each cell's K queries in the pixels of its tile."""
        below, right = np.array([[0], [1]]), np.array([[0, 1]])
        at = y[:, None, None, None] + below, x[:, None, None, None] + right
        ends = corners[at[0], at[1], queries[:, :, None, None]]  # (cells, K, 2, 2)
        down = self._rows.start_and_slope.astype(self._dtype)[start + y]
        along = self._columns.start_and_slope.astype(self._dtype)[x]
        bilinear = down[:, None] @ ends @ along.transpose(0, 2, 1)[:, None]
        tiles: Values = bilinear.reshape(-1, 4) @ self._monomials
        return tiles.reshape(*queries.shape, -1)

    def _pixels(self, tiles: npt.NDArray[Number], rows: slice, start: int) -> npt.NDArray[Number]:
        """(rows, tile, columns, tile) -> (r, W): the pixels of the image that the tiles hold."""
        height, width = self._tile_hw
        down = (self._rows.piece_of_px[rows] - start) * height + self._rows.index_in_piece[rows]
        along = self._columns.piece_of_px * width + self._columns.index_in_piece
        flat = tiles.reshape(tiles.shape[0] * height, tiles.shape[2] * width)
        pixels: npt.NDArray[Number] = flat[down].take(along, axis=1)
        return pixels


def _ambiguous_cells(
    corners: Values, y: Indices, x: Indices, tile_px: int
) -> Iterator[tuple[Indices, Indices, Indices]]:
    """Batch cells (y, x) with the queries that can win in them.

    Yields:
        (n,) rows and (n,) columns of cells, and (n, K) queries, see `candidate_batches`.
    """
    if not len(y):
        return
    four = [corners[y, x], corners[y, x + 1], corners[y + 1, x], corners[y + 1, x + 1]]
    highest = np.maximum(np.maximum(four[0], four[1]), np.maximum(four[2], four[3]))
    lowest = np.minimum(np.minimum(four[0], four[1]), np.minimum(four[2], four[3]))
    possible = highest >= lowest.max(axis=1, keepdims=True) - _MARGIN
    for some, queries in candidate_batches(possible, tile_px):
        yield y[some], x[some], queries
