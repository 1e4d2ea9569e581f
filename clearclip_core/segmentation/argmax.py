"""Exact argmax over all queries at full resolution, computed from patch cosines.

The image is cut into cells in which every upsampled value is a convex combination of its four
corners. A query that wins all four corners of a cell wins the whole cell. In any other cell only
those queries can win whose largest corner reaches the smallest corner of some query. Few pixels
are left to compute, and the result is that of comparing all queries at every pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.upsampling import AxisUpsampling, Indices, Values, upsample

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


def first_maximum(
    values: Values, labels: npt.NDArray[np.int16]
) -> tuple[npt.NDArray[np.int16], Values]:
    """Return the label of the largest value of each pixel, and that value.

    Of equal values the first wins.

    Args:
        values: (N, K, P), K candidates in P pixels of N cells.
        labels: (N, K), the label of each candidate.

    Returns:
        (N, P) int16 labels and (N, P) values.
    """
    largest = values[:, 0].copy()
    count, better = values.shape[1], np.empty(largest.shape, np.bool_)
    # The winner is the last one that was better than all before it, so its index is the largest.
    winner = np.zeros(largest.shape, np.min_scalar_type(count - 1))
    for index in range(1, count):
        np.greater(values[:, index], largest, out=better)
        np.maximum(largest, values[:, index], out=largest)
        # To copy the index where it is better takes a branch a pixel.
        np.maximum(winner, better.view(np.uint8) * winner.dtype.type(index), out=winner)
    return labels.ravel().take(winner + count * np.arange(len(labels))[:, None]), largest


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
        rows: rows of the image.
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
        rows: upsampling of the rows.
        columns: upsampling of the columns.
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
        """Yield all rows of the image, band by band.

        Args:
            with_cosines: compute the winning query's cosine as well.
        """
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
            winner, peak = first_maximum(values, self._query_labels[queries])
            labels[some_y, :, some_x] = winner.reshape(-1, *self._tile_hw)
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
