"""The best label of each pixel, and how much all queries weigh there, from patch cosines.

Every value in a cell of two lattices is a convex combination of its four corners. So the query
that wins all four corners of a cell wins the whole of it; and elsewhere only those queries can
win a pixel whose largest corner reaches what some query has at its smallest. What is left to
compute pixel by pixel is little, and the result is that of comparing all queries everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.upsampling import (
    AxisSamples,
    AxisUpsampling,
    Indices,
    Matrix,
    Values,
    sparse_parts,
)

#: Largest side of a cell in px: a larger one leaves more queries in doubt, a smaller one has more
#: corners to compute.
CELL_PX = 12.0

#: About so many values are worked on at once: what fits a core's cache.
BAND_ELEMENTS = 1 << 19

#: A query this much below what surely wins is compared all the same: corners are rounded.
_MARGIN = 1e-6

#: Logits by which the slopes of two queries may differ from one sample to the next. The fourth
#: derivative of a log-sum-exp of linear functions is a fourth cumulant of their slopes: at most
#: range^4 / 8 in size; a cubic is off by at most 1 / 24 of it, and in two directions by
#: (1 + 1.64) as much. So this keeps the denominators' error below 2^-11, a step of float16.
SAMPLE_LOGITS = 0.43


@dataclass(frozen=True, eq=False)
class Band:
    """Winners in some rows of the original picture.

    Attributes:
        rows: which rows.
        labels: (r, W) int16, the owner of the winning query.
        cosines: (r, W), of the winning query; empty where they were not asked for.
    """

    rows: slice
    labels: npt.NDArray[np.int16]
    cosines: Values


class ArgmaxBands:
    """The best query of each pixel, in bands of rows.

    Args:
        cosines: (h, w, Q), the windows' patch maps side by side.
        owners: (Q,) int16, what stands in the result for each query.
        rows: the vertical way to pixels.
        columns: the horizontal one.
    """

    def __init__(
        self,
        cosines: Values,
        owners: npt.NDArray[np.int16],
        rows: AxisUpsampling,
        columns: AxisUpsampling,
    ) -> None:
        self._cosines, self._owners, self._dtype = cosines, owners, cosines.dtype
        self._rows, self._columns = rows.lattice(CELL_PX), columns.lattice(CELL_PX)
        self._tile_hw = self._rows.longest_px, self._columns.longest_px
        y, x = np.mgrid[: self._tile_hw[0], : self._tile_hw[1]]
        # Of these a cell's values are made; what lies outside a small cell is never looked at.
        self._monomials = np.stack([y**0, x, y, y * x]).reshape(4, -1).astype(self._dtype)

    def bands(self, with_cosines: bool) -> Iterator[Band]:
        """All rows, band by band.

        Args:
            with_cosines: also tell the winning query's cosine.
        """
        step = max(1, BAND_ELEMENTS // (len(self._columns.lines) * len(self._owners)))
        for start in range(0, len(self._rows), step):
            yield self._band(slice(start, min(start + step, len(self._rows))), with_cosines)

    def _band(self, pieces: slice, with_cosines: bool) -> Band:
        rows, columns = self._rows, self._columns
        lines = rows.lines[pieces.start : pieces.stop + 1], columns.lines
        corners = upsample(self._cosines, *(each.astype(self._dtype) for each in lines))
        best = corners.argmax(axis=2)
        first = best[:-1, :-1]
        agreed = (first == best[1:, :-1]) & (first == best[:-1, 1:]) & (first == best[1:, 1:])
        # A tile for each cell, all of one size, laid out as the picture is.
        shape = (len(first), self._tile_hw[0], first.shape[1], self._tile_hw[1])
        labels = np.empty(shape, np.int16)
        labels[:] = self._owners[first][:, None, :, None]
        peaks = np.empty(shape if with_cosines else (*shape[:3], 0), self._dtype)
        if with_cosines:
            cells = np.indices(first.shape).reshape(2, -1)
            tiles = self._tiles(corners, pieces.start, cells[0], cells[1], first.reshape(-1, 1))
            peaks.transpose(0, 2, 1, 3)[:] = tiles.reshape(*first.shape, *self._tile_hw)
        uncertainty = np.nonzero(~agreed)
        for y, x, queries in _doubtful(
            corners, uncertainty[0], uncertainty[1], self._monomials.shape[1]
        ):
            tiles = self._tiles(corners, pieces.start, y, x, queries)
            owners, peak = first_maximum(tiles, self._owners[queries])
            labels[y, :, x] = owners.reshape(-1, *self._tile_hw)
            if with_cosines:
                peaks[y, :, x] = peak.reshape(-1, *self._tile_hw)
        pixels = slice(int(rows.first_px[pieces.start]), int(rows.first_px[pieces.stop]))
        down = (rows.piece_of_px[pixels] - pieces.start) * shape[1] + rows.place_of_px[pixels]
        right = columns.piece_of_px * shape[3] + columns.place_of_px
        flat = shape[0] * shape[1], shape[2] * shape[3]
        return Band(
            pixels,
            labels.reshape(flat)[down].take(right, axis=1),
            peaks.reshape(flat)[down].take(right, axis=1) if with_cosines else peaks,
        )

    def _tiles(
        self, corners: Values, start: int, y: Indices, x: Indices, queries: Indices
    ) -> Values:
        """(cells, K, tile): cosines of each cell's K queries in the pixels of its tile."""
        below, right = np.array([[0], [1]]), np.array([[0, 1]])
        at = y[:, None, None, None] + below, x[:, None, None, None] + right
        ends = corners[at[0], at[1], queries[:, :, None, None]]  # (cells, K, 2, 2)
        down = self._rows.growth.astype(self._dtype)[start + y]
        along = self._columns.growth.astype(self._dtype)[x]
        bilinear = down[:, None] @ ends @ along.transpose(0, 2, 1)[:, None]
        tiles: Values = bilinear.reshape(-1, 4) @ self._monomials
        return tiles.reshape(*queries.shape, -1)


def _doubtful(
    corners: Values, y: Indices, x: Indices, tile_px: int
) -> Iterator[tuple[Indices, Indices, Indices]]:
    """Cells (y, x) with the K queries that may win in them, cells of about the same K together.

    Yields:
        y and x of some cells, and (cells, K) queries, ascending; the last is repeated where a
        cell has fewer.
    """
    if not len(y):
        return
    four = [corners[y, x], corners[y, x + 1], corners[y + 1, x], corners[y + 1, x + 1]]
    highest = np.maximum(np.maximum(four[0], four[1]), np.maximum(four[2], four[3]))
    lowest = np.minimum(np.minimum(four[0], four[1]), np.minimum(four[2], four[3]))
    possible = highest >= lowest.max(axis=1, keepdims=True) - _MARGIN
    for some, queries in candidates(possible, tile_px):
        yield y[some], x[some], queries


def candidates(
    possible: npt.NDArray[np.bool_], values_each: int
) -> Iterator[tuple[Indices, Indices]]:
    """Cells with what may win in them, cells of about as many candidates together.

    Args:
        possible: (N, Q), whether query q may win in a cell; at least one may.
        values_each: how many values a cell and a query have, for the size of a batch.

    Yields:
        (cells,) indices of some cells, and (cells, K) queries, ascending; the last is repeated
        where a cell has fewer.
    """
    _, queries = np.nonzero(possible)
    counts = possible.sum(axis=1)
    starts = np.cumsum(counts) - counts
    order = np.argsort(counts, kind="stable")
    done = 0
    while done < len(order):
        # As many cells as have at most a quarter more queries than the one with the fewest.
        most = counts[order[done]] * 5 // 4 + 1
        stop = int(np.searchsorted(counts[order], most, side="right"))
        stop = min(stop, done + max(1, BAND_ELEMENTS // int(most * values_each)))
        some = order[done:stop]
        rank = np.minimum(np.arange(counts[some].max()), counts[some, None] - 1)
        yield some, queries[starts[some, None] + rank]
        done = stop


def first_maximum(
    values: Values, owners: npt.NDArray[np.int16]
) -> tuple[npt.NDArray[np.int16], Values]:
    """(N, K, P) values and (N, K) owners -> (N, P) owner of the largest, and the largest."""
    largest = values[:, 0].copy()
    owner = np.repeat(owners[:, :1], values.shape[2], axis=1)
    for index in range(1, values.shape[1]):
        better = values[:, index] > largest
        np.copyto(largest, values[:, index], where=better)
        np.copyto(owner, owners[:, index, None], where=better)
    return owner, largest


class LogSumExp:
    """Log of the softmax's denominators at any pixel, up to a step of float16.

    A log-sum-exp is smooth where its logits are linear: it is computed at samples as far apart as
    the logits' slopes allow (see `SAMPLE_LOGITS`), and cubics make pixels of them. Where slopes
    are steep, or nothing is saved, the samples are the pixels.

    Args:
        logits: (h, w, Q), the windows' patch maps side by side.
        rows: the vertical way to pixels.
        columns: the horizontal one.
    """

    def __init__(self, logits: Values, rows: AxisUpsampling, columns: AxisUpsampling) -> None:
        # In the middle of 0, exponentials neither overflow nor vanish up to a range of 160.
        self._middle = (logits.max() + logits.min()) / 2
        dtype = logits.dtype if np.ptp(logits) < 160 else np.float64
        logits = (logits - self._middle).astype(dtype)
        vertical, horizontal = _spacings_px(logits, rows, columns)
        self._rows, self._columns = rows.samples(vertical), columns.samples(horizontal)
        logs = _log_sum_exp(logits, self._rows, self._columns)
        self._logs = np.ascontiguousarray(self._columns.interpolate(logs.T).T)

    def log(self, rows: slice) -> Values:
        """(r, W): log of the sum over all queries of exp(logit), in rows of original pixels."""
        logs: Values = self._rows.interpolate(self._logs, rows) + self._middle
        return logs


def upsample(values: Values, rows: Values, columns: Values) -> Values:
    """(h, w, Q) -> (m, n, Q) by matrices (m, h) and (n, w)."""
    height, width, queries = values.shape
    bands = (rows @ values.reshape(height, -1)).reshape(-1, width, queries)
    made = np.empty((len(rows), len(columns), queries), values.dtype)
    for lines, taken, weights in sparse_parts(columns):
        np.matmul(weights, bands[:, taken], out=made[:, lines])
    return made


def _log_sum_exp(logits: Values, rows: AxisSamples, columns: AxisSamples) -> Values:
    """(h, w, Q) -> (m, n) at the samples."""
    height, width, queries = logits.shape
    by_row = logits.transpose(0, 2, 1).reshape(height, -1)  # (h, Q*w)
    down, along = rows.lines.astype(logits.dtype), columns.lines.astype(logits.dtype)
    parts = list(sparse_parts(along))
    made = np.empty((len(down), len(along)), logits.dtype)
    step = max(1, BAND_ELEMENTS // (queries * width))
    for start in range(0, len(down), step):
        some = slice(start, start + step)
        band = (down[some] @ by_row).reshape(-1, queries, width)
        for lines, taken, weights in parts:
            each = band[..., taken] @ weights.T  # (r, Q, lines)
            made[some, lines] = np.exp(each, out=each).sum(axis=1)
    return np.log(made, out=made)


def _spacings_px(
    logits: Values, rows: AxisUpsampling, columns: AxisUpsampling
) -> tuple[Matrix, Matrix]:
    """How far samples may be apart in each piece between two bends of the rows and the columns."""
    down, along = (course.at(course.bends).astype(logits.dtype) for course in (rows, columns))
    spread = np.zeros(len(down) - 1), np.zeros(len(along) - 1)
    above = upsample(logits, down[:1], along)[0]  # (n, Q)
    for piece in range(len(down) - 1):
        np.maximum(spread[1], np.ptp(np.diff(above, axis=0), axis=1), out=spread[1])
        below = upsample(logits, down[piece + 1 : piece + 2], along)[0]
        spread[0][piece] = np.ptp(below - above, axis=1).max()
        above = below
    np.maximum(spread[1], np.ptp(np.diff(above, axis=0), axis=1), out=spread[1])
    lengths = (np.diff(course.bends) / course.scale for course in (rows, columns))
    with np.errstate(divide="ignore"):
        vertical, horizontal = (
            SAMPLE_LOGITS * px / logit for px, logit in zip(lengths, spread, strict=True)
        )
    return vertical, horizontal
