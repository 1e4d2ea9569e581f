"""The exact argmax over maps that are linear in cells of an image, and there in its colours.

A map is known at the corners of cells. Between them its value at a pixel is bilinear (the cosine
of a query), or a linear function of the pixel's colour whose factors are bilinear (a map that a
guided filter has refined). So it is known for each cell how near a map can come to another one,
and in most cells one map alone can be the largest. Several are computed only in the few cells
where several can win, and the result is that of comparing all maps at every pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.upsampling import (
    BATCH_ELEMENTS,
    AxisCells,
    Indices,
    Values,
    upsample,
)

#: A map this much below the largest is compared all the same: values at corners are rounded.
_MARGIN = 1e-5

#: Pixels of a band.
_BAND_PX = 1 << 20

#: Pixels of a batch of cells: so many that calling torch costs little, and so few that the batch
#: stays in a CPU's cache.
_BATCH_PX = 128_000


class Band(NamedTuple):
    """The argmax in some rows of an image.

    Attributes:
        labels: (r, W) int16, the label of the largest map.
        values: (r, W), its value; empty where it was not asked for.
    """

    rows: slice
    labels: npt.NDArray[np.int16]
    values: Values


class TileArgmax:
    """The largest of some maps at each pixel of an image.

    Args:
        maps: (h, w, C, K) floats from which the corners of cells are interpolated. C is 1 for the
            values of the maps, or 4 for factors of red, green and blue in [0, 255] and values.
        owners: (K,) int16, the label of each map.
        rows: weights of the h in the corners of cells.
        image: (H, W, 3) uint8 RGB, where C is 4.
    """

    def __init__(
        self,
        maps: Values,
        owners: npt.NDArray[np.int16],
        rows: AxisCells,
        columns: AxisCells,
        image: RGBArray | None = None,
    ) -> None:
        self._maps, self._owners = maps, owners
        self._rows, self._columns = rows, columns
        self._down, self._along = (axis.fractions.astype(maps.dtype) for axis in (rows, columns))
        self._image = None if image is None else np.ascontiguousarray(image)

    def bands(self, with_values: bool = True) -> Iterator[Band]:
        """Yield all rows of the image, band by band."""
        corners = len(self._columns.matrix) * self._maps[0, 0].size
        pixels = len(self._along) * int(self._rows.sizes_px.max())
        step = max(1, min(BATCH_ELEMENTS // corners, _BAND_PX // pixels))
        count = len(self._rows.sizes_px)
        for start in range(0, count, step):
            yield self._band(slice(start, min(start + step, count)), with_values)

    def _band(self, cells: slice, with_values: bool) -> Band:
        """Compute some rows of cells."""
        ends = self._ends(cells)
        large, rivals = self._candidates(ends, cells)
        first_px, sizes_px = self._rows.first_px, self._rows.sizes_px[cells]
        rows = slice(int(first_px[cells.start]), int(first_px[cells.stop]))
        labels = self._owners[large].repeat(self._columns.sizes_px, axis=1)
        labels = labels.repeat(sizes_px, axis=0)
        values = np.empty((len(labels), len(self._along) if with_values else 0), self._maps.dtype)
        if with_values:
            own = [_of_maps(end, large[..., None])[..., 0] for end in ends]  # (m, n, C) each
            for row, top in enumerate(first_px[cells].tolist()):
                part = slice(top, top + int(sizes_px[row]))
                _evaluate(
                    [end[row].T for end in own],
                    self._columns.sizes_px,
                    self._along,
                    self._down[part, None],
                    _planes(self._image[part]) if self._image is not None else (),
                    values[part.start - rows.start : part.stop - rows.start],
                )
        for y, x, width, maps in self._ambiguous(large, rivals, cells):
            lines = self._lines_px(cells, y)  # (h, N)
            own_ends = [end[y[:, None], x[:, None], :, maps] for end in ends]  # (N, k, C) each
            owners, largest = self._decide(own_ends, maps, lines, x, width)
            for own_width, some in _groups(self._columns.sizes_px[x]):
                at = lines[:, some] - rows.start, self._columns.first_px[x[some]]
                _stretches(labels, own_width)[at] = owners[:, some, :own_width]
                if with_values:
                    _stretches(values, own_width)[at] = largest[:, some, :own_width]
        return Band(rows, labels, values)

    def _ends(self, cells: slice) -> tuple[Values, Values, Values, Values]:
        """Return (m, n, C, K) maps at the upper left, upper right, lower left and lower right."""
        matrices = self._rows.matrix[cells.start : cells.stop + 1], self._columns.matrix
        height, width, *shape = self._maps.shape
        flat = self._maps.reshape(height, width, -1)
        corners = upsample(flat, *(matrix.astype(flat.dtype) for matrix in matrices))
        corners = corners.reshape(*corners.shape[:2], *shape)
        return corners[:-1, :-1], corners[:-1, 1:], corners[1:, :-1], corners[1:, 1:]

    def _candidates(
        self, ends: Sequence[Values], cells: slice
    ) -> tuple[Indices, npt.NDArray[np.bool_]]:
        """Return (m, n) a map that is large in each cell, and (m, n, K) which others reach it."""
        (height, width, _, count) = ends[0].shape
        if count == 1:
            return np.zeros((height, width), np.intp), np.zeros((height, width, 1), np.bool_)
        middle, half = self._colour_range(cells)
        large = _values(ends[0] + ends[3], middle).argmax(axis=2)
        rivals = np.zeros((height, width, count), np.bool_)
        for end in ends:
            own = _of_maps(end, large[..., None])
            most = _values(end, middle)
            if half.size:
                most = most + (np.abs(end[:, :, :-1] - own[:, :, :-1]) * half).sum(axis=2)
            rivals |= most >= _values(own, middle) - _MARGIN
        np.put_along_axis(rivals, large[..., None], False, axis=2)
        return large, rivals

    def _colour_range(self, cells: slice) -> tuple[Values, Values]:
        """Return (m, n, C - 1, 1) the middle of each colour in cells, and half its range."""
        if self._image is None:
            none = np.empty((1, 1, 0, 1), self._maps.dtype)
            return none, none
        ranges = [
            slice(*each) for each in pairwise(self._rows.first_px[cells.start : cells.stop + 1])
        ]
        low, high = (
            extreme.reduceat(
                np.stack([extreme.reduce(self._image[rows]) for rows in ranges]),
                self._columns.first_px[:-1],
                axis=1,
            ).astype(np.float32)[..., None]
            for extreme in (np.minimum, np.maximum)
        )
        return (high + low) / 2, (high - low) / 2

    def _ambiguous(
        self, large: Indices, rivals: npt.NDArray[np.bool_], cells: slice
    ) -> Iterator[tuple[Indices, Indices, int, Indices]]:
        """Yield the (N,) rows and (N,) columns of cells, and (N, k) maps that can win in them.

        Beside them their width in px, or without an image that of the widest: pixels beyond a cell
        cost less than small batches, but in an image they may not be there.
        """
        heights, widths = self._rows.sizes_px[cells], self._columns.sizes_px
        y, x = np.nonzero(rivals.any(axis=2) & (heights[:, None] > 0))
        possible = rivals[y, x]
        possible[np.arange(len(y)), large[y, x]] = True
        of_cells = widths[x] if self._image is not None else np.full_like(x, widths.max())
        for width, own in _groups(of_cells):
            area = width * int(heights.max())
            for some, maps in candidate_batches(possible[own], area, max(1, _BATCH_PX // area)):
                yield y[own[some]], x[own[some]], width, maps

    def _lines_px(self, cells: slice, y: Indices) -> Indices:
        """Return (h, N) rows of pixels of cells; the last is repeated in those that have fewer."""
        sizes = self._rows.sizes_px[cells]
        below = np.minimum(np.arange(sizes.max())[:, None], sizes[y] - 1)
        lines: Indices = self._rows.first_px[cells][y] + below
        return lines

    def _decide(
        self, ends: Sequence[Values], maps: Indices, lines: Indices, x: Indices, width: int
    ) -> tuple[npt.NDArray[np.int16], Values]:
        """Compute several maps in N cells: (h, N, width) labels and values."""
        left = self._columns.first_px[x]
        columns = np.minimum(left[:, None] + np.arange(width), len(self._along) - 1)
        colours: Sequence[torch.Tensor] = ()
        if self._image is not None:
            by_line = self._image.reshape(len(self._image), -1)
            pixels = _stretches(by_line, 3 * width)[lines, 3 * left]
            colours = _planes(pixels.reshape(len(lines), -1, 3))
        values = _evaluate(
            [end.transpose(1, 2, 0) for end in ends],
            width,
            self._along[columns].ravel(),
            self._down[lines].repeat(width, axis=1),
            colours,
        )
        best, largest = first_maximum(values)
        first = np.arange(0, maps.size, maps.shape[1]).repeat(width)  # of each column's maps
        owners = self._owners[maps].ravel().take(best + first)
        shape = *lines.shape, width
        return owners.reshape(shape), largest.reshape(shape)


def _groups(sizes: Indices) -> Iterator[tuple[int, Indices]]:
    """Yield each size above 0, and the indices that have it."""
    for size in np.unique(sizes[sizes > 0]).tolist():
        yield size, np.flatnonzero(sizes == size)


def _of_maps(functions: Values, maps: Indices) -> Values:
    """(..., C, K) -> (..., C, k), of the maps (..., k)."""
    return np.take_along_axis(functions, maps[..., None, :], axis=-1)


def _values(functions: Values, colours: Values) -> Values:
    """Evaluate (m, n, C, K) functions at (m, n, C - 1, 1) colours: (m, n, K)."""
    values: Values = functions[:, :, -1]
    if functions.shape[2] > 1:
        values = values + (functions[:, :, :-1] * colours).sum(axis=2)
    return values


def _evaluate(
    ends: Sequence[Values],
    sizes_px: int | Indices,
    along: Values,
    down: Values,
    colours: Sequence[torch.Tensor],
    out: Values | None = None,
) -> Values:
    """Evaluate functions at the pixels of N cells that lie side by side: (..., h, n).

    Args:
        ends: four (..., C, N), the functions at the corners of the cells.
        sizes_px: columns of pixels of each cell, n in all.
        along: (n,), where these are between the cells' left and right ends.
        down: (h, 1) or (h, n), where the pixels are between the upper and the lower ends.
        colours: red, green and blue, (h, n) uint8 each; none where C is 1.
    """
    above, below = (
        left.repeat(sizes_px, axis=-1) + (right - left).repeat(sizes_px, axis=-1) * along
        for left, right in (ends[:2], ends[2:])
    )
    (*factors, value), (*rises, rise) = (
        torch.from_numpy(each).unsqueeze(-2).unbind(-3) for each in (above, below - above)
    )
    fractions = torch.from_numpy(down)
    shape = (*value.shape[:-2], *np.broadcast_shapes(down.shape, along.shape))
    values = torch.empty(shape, dtype=value.dtype) if out is None else torch.from_numpy(out)
    slopes = torch.empty(shape if colours else 0, dtype=value.dtype)
    for plane, factor, slope in zip(colours, factors, rises, strict=True):
        colour = plane.to(value.dtype)
        value = torch.addcmul(value, colour, factor, out=values)
        rise = torch.addcmul(rise, colour, slope, out=slopes)
    return torch.addcmul(value, rise, fractions, out=values).numpy()


def _planes(pixels: RGBArray) -> list[torch.Tensor]:
    """Return red, green and blue of (h, n, 3) pixels, (h, n) uint8 each."""
    return [torch.from_numpy(plane) for plane in cv2.split(pixels)]


def _stretches(array: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Return (H, W - length + 1, length): a view of as many numbers from each place of a row on."""
    height, width = array.shape
    shape, strides = (height, width - length + 1, length), (*array.strides, array.strides[1])
    return np.ndarray(shape, array.dtype, array, 0, strides)


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
