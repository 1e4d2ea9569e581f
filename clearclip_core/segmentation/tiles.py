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
from typing import Any

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
_BAND_PX = 1 << 22

#: Pixels of a batch of cells: so many that calling torch costs little, and so few that the batch
#: stays in a CPU's cache.
_BATCH_PX = 128_000


class TileArgmax:
    """The largest of some maps at each pixel of an image.

    Args:
        maps: (h, C, K, w) floats from which the corners of cells are interpolated. C is 1 for the
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

    def decide(
        self, labels: npt.NDArray[np.int16], with_values: bool = True
    ) -> Iterator[tuple[slice, Values]]:
        """Write the label of the largest map at each pixel, band by band.

        Args:
            labels: (H, W), C-contiguous; is written to.

        Yields:
            Rows of the image, whose labels are written; and (r, W) values of the largest maps,
            empty where they were not asked for.
        """
        corners = len(self._columns.matrix) * self._maps[0, :, :, 0].size
        pixels = len(self._along) * int(self._rows.sizes_px.max())
        step = max(1, min(BATCH_ELEMENTS // corners, _BAND_PX // pixels))
        count = len(self._rows.sizes_px)
        for start in range(0, count, step):
            cells = slice(start, min(start + step, count))
            rows = slice(*self._rows.first_px[[cells.start, cells.stop]].tolist())
            yield rows, self._decide(cells, labels[rows], with_values)

    def _decide(self, cells: slice, labels: npt.NDArray[np.int16], with_values: bool) -> Values:
        """Decide the pixels of some rows of cells."""
        ends = self._ends(cells)
        large, own, rivals = self._candidates(ends, cells)
        first_px = self._rows.first_px[cells.start : cells.stop + 1]
        owners = self._owners[large].repeat(self._columns.sizes_px, axis=1)
        values = np.empty((len(labels), len(self._along) if with_values else 0), self._maps.dtype)
        if with_values:
            own_ends = [end[:, :, 0].swapaxes(0, 1) for end in own]  # (C, m, n) each
            functions = _interpolate(own_ends, self._columns.sizes_px, self._along)
        start, step = int(first_px[0]), max(1, _BATCH_PX // len(self._along))
        for row, (top, bottom) in enumerate(pairwise(first_px.tolist())):
            labels[top - start : bottom - start] = owners[row]
            for first in range(top, bottom, step) if with_values else ():
                part = slice(first, min(first + step, bottom))
                _evaluate(
                    functions[:, row],
                    self._down[part, None],
                    _planes(self._image[part]) if self._image is not None else (),
                    values[part.start - start : part.stop - start],
                )
        sizes = self._rows.sizes_px[cells]
        # Rows of pixels of cells; the last is repeated in those that have fewer.
        lines = first_px[:-1] + np.minimum(np.arange(sizes.max())[:, None], sizes - 1)
        for y, x, width, maps in self._ambiguous(large, rivals, sizes):
            own_ends = [end[y[:, None], :, maps, x[:, None]].T for end in ends]  # (C, k, N) each
            rows = lines.take(y, axis=1)  # (h, N)
            best, largest = self._compare(own_ends, maps, rows, x, width)
            rows -= start
            for own_width, some in _groups(self._columns.sizes_px[x]):
                at = rows[:, some], self._columns.first_px[x[some]]
                _stretches(labels, own_width)[at] = best[:, some, :own_width]
                if with_values:
                    _stretches(values, own_width)[at] = largest[:, some, :own_width]
        return values

    def _ends(self, cells: slice) -> tuple[Values, Values, Values, Values]:
        """Return (m, C, K, n) maps at the upper left, upper right, lower left and lower right."""
        matrices = self._rows.matrix[cells.start : cells.stop + 1], self._columns.matrix
        corners = upsample(self._maps, *(each.astype(self._maps.dtype) for each in matrices))
        above, below = corners[:-1], corners[1:]
        return above[..., :-1], above[..., 1:], below[..., :-1], below[..., 1:]

    def _candidates(
        self, ends: Sequence[Values], cells: slice
    ) -> tuple[Indices, Values, npt.NDArray[np.bool_]]:
        """Find the maps that can win in cells; see `find_candidates`, whose arrays it returns."""
        found = find_candidates(torch.from_numpy(np.stack(ends)), *self._colour_range(cells))
        large, own, rivals = (each.numpy() for each in found)
        return large, own, rivals

    def _colour_range(self, cells: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (C - 1, m, 1, n) the middle of each colour in cells, and half its range."""
        if self._image is None:
            none = torch.empty(0, 1, 1, 1)
            return none, none
        ranges = [
            slice(*each) for each in pairwise(self._rows.first_px[cells.start : cells.stop + 1])
        ]
        low, high = (
            torch.from_numpy(
                extreme.reduceat(
                    np.stack([extreme.reduce(self._image[rows]) for rows in ranges]),
                    self._columns.first_px[:-1],
                    axis=1,
                ).transpose(2, 0, 1)[:, :, None]
            ).to(torch.float32, memory_format=torch.contiguous_format)
            for extreme in (np.minimum, np.maximum)
        )
        return (high + low) / 2, (high - low) / 2

    def _ambiguous(
        self, large: Indices, rivals: npt.NDArray[np.bool_], heights: Indices
    ) -> Iterator[tuple[Indices, Indices, int, Indices]]:
        """Yield the (N,) rows and (N,) columns of cells, and (N, k) maps that can win in them.

        Beside them their width in px, or without an image that of the widest: pixels beyond a cell
        cost less than small batches, but in an image they may not be there.
        """
        widths = self._columns.sizes_px
        y, x = np.nonzero(rivals.any(axis=1) & (heights[:, None] > 0))
        possible = rivals[y, :, x]
        possible[np.arange(len(y)), large[y, x]] = True
        of_cells = widths[x] if self._image is not None else np.full_like(x, widths.max())
        for width, own in _groups(of_cells):
            area = width * int(heights.max())
            own_y, own_x = y[own], x[own]
            for some, maps in candidate_batches(possible[own], area, max(1, _BATCH_PX // area)):
                yield own_y[some], own_x[some], width, maps

    def _compare(
        self, ends: Sequence[Values], maps: Indices, lines: Indices, x: Indices, width: int
    ) -> tuple[npt.NDArray[np.int16], Values]:
        """Compute several maps in (h, N) rows of N cells: (h, N, width) labels and values."""
        left = self._columns.first_px[x]
        columns = np.minimum(left[:, None] + np.arange(width), len(self._along) - 1)
        colours: Sequence[torch.Tensor] = ()
        if self._image is not None:
            by_line = self._image.reshape(len(self._image), -1)
            pixels = _stretches(by_line, 3 * width)[lines, 3 * left]
            colours = _planes(pixels.reshape(len(lines), -1, 3))
        functions = _interpolate(ends, width, self._along[columns].ravel())
        values = _evaluate(functions, self._down[lines].repeat(width, axis=1), colours)
        best, largest = first_maximum(values)
        first = np.arange(0, maps.size, maps.shape[1]).repeat(width)  # of each column's maps
        owners = self._owners[maps].ravel().take(best + first)
        shape = *lines.shape, width
        return owners.reshape(shape), largest.reshape(shape)


def find_candidates(
    ends: torch.Tensor, middle: torch.Tensor, half: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the maps that can win in cells, on any device.

    Args:
        ends: (4, m, C, K, n), the maps at the corners of the cells.
        middle: (C - 1, m, 1, n) the middle of each colour in the cells.
        half: the same of half its range.

    Returns:
        (m, n) a map that is large in each cell; it at the four corners, (4, m, C, 1, n); and
        (m, K, n) which others reach it.
    """
    most = _values(ends, middle)
    large = most.sum(dim=0).max(dim=1).indices
    own = torch.take_along_dim(ends, large[None, :, None, None], 3)
    least = _values(own, middle) - _MARGIN
    for colour, of_half in enumerate(half):
        ahead = (ends[:, :, colour] - own[:, :, colour]).abs_()
        most = torch.addcmul(most, ahead, of_half)
    rivals = (most >= least).any(dim=0)
    rivals.scatter_(1, large[:, None], False)
    return large, own, rivals


def _groups(sizes: Indices) -> Iterator[tuple[int, Indices | slice]]:
    """Yield each size above 0, and where it is: nothing is copied where all sizes are one."""
    counts = np.bincount(sizes)
    for size in np.flatnonzero(counts).tolist():
        if size:
            all_are = counts[size] == len(sizes)
            yield size, slice(None) if all_are else np.flatnonzero(sizes == size)


def _values(functions: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Evaluate (4, m, C, K, n) functions at (C - 1, m, 1, n) colours: (4, m, K, n)."""
    values = functions[:, :, -1]
    for number, colour in enumerate(colours):
        values = torch.addcmul(values, functions[:, :, number], colour)
    return values


def _evaluate(
    functions: Values,
    down: Values,
    colours: Sequence[torch.Tensor],
    out: Values | None = None,
) -> Values:
    """Evaluate functions at pixels: (..., h, n).

    Args:
        functions: (2 * C, ..., n), see `_interpolate`.
        down: (h, 1) or (h, n), where the pixels are between the upper and the lower ends.
        colours: red, green and blue, (h, n) uint8 each; none where C is 1.
    """
    parts = torch.from_numpy(functions).unsqueeze(-2).unbind()
    (*factors, value), (*slopes, rise) = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    shape = (*value.shape[:-2], len(down), value.shape[-1])
    # Scratch that stays in a CPU's cache, as a band's values would not.
    values, rises = torch.empty(2, *shape, dtype=value.dtype)
    colour = torch.empty(shape[-2:] if colours else 0, dtype=value.dtype)
    for plane, factor, slope in zip(colours, factors, slopes, strict=True):
        colour.copy_(plane)
        value = torch.addcmul(value, colour, factor, out=values)
        rise = torch.addcmul(rise, colour, slope, out=rises)
    made = values if out is None else torch.from_numpy(out)
    return torch.addcmul(value, rise, torch.from_numpy(down), out=made).numpy()


def _interpolate(ends: Sequence[Values], sizes_px: int | Indices, along: Values) -> Values:
    """Interpolate functions along the upper ends of N cells that lie side by side.

    Args:
        ends: four (C, ..., N), the functions at the corners of the cells.
        sizes_px: columns of pixels of each cell, n in all.
        along: (n,), where these are between the cells' left and right ends.

    Returns:
        (2 * C, ..., n): the functions there, and how much more they are at the lower ends.
    """
    left = np.concatenate([ends[0], ends[2] - ends[0]])
    slope = np.concatenate([ends[1], ends[3] - ends[1]]) - left
    functions: Values = slope.repeat(sizes_px, axis=-1)
    functions *= along
    functions += left.repeat(sizes_px, axis=-1)
    return functions


def _planes(pixels: RGBArray) -> list[torch.Tensor]:
    """Return red, green and blue of (h, n, 3) pixels, (h, n) uint8 each."""
    return [torch.from_numpy(plane) for plane in cv2.split(pixels)]


def _stretches(array: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Return (H, W - length + 1, length): a view of as many numbers from each place of a row on."""
    height, width = array.shape
    shape, strides = (height, width - length + 1, length), (*array.strides, array.strides[1])
    return np.ndarray(shape, array.dtype, array, 0, strides)


def candidate_batches(
    possible: npt.NDArray[np.bool_],
    values_per_cell: int,
    most_cells: int | None = None,
    most_values: int | None = None,
) -> Iterator[tuple[Indices, Indices]]:
    """Batch cells that have about the same number of candidates.

    Args:
        possible: (N, Q) bool, whether candidate q can win somewhere in a cell; at least one can in
            each cell.
        values_per_cell: values that a cell has for each candidate. It sets the size of a batch.
        most_cells: most cells of a batch; any number by default.
        most_values: most values of a batch, unless it is of one cell; `BATCH_ELEMENTS` by default.

    Yields:
        (n,) indices of cells, and (n, K) their candidates in ascending order. Where a cell has
        fewer than K, its last candidate is repeated.
    """
    of_cells, candidates = np.nonzero(possible)
    counts = np.bincount(of_cells, minlength=len(possible))
    starts = np.cumsum(counts) - counts
    order = np.argsort(counts, kind="stable")
    ordered = counts[order]
    done, most_cells = 0, most_cells or len(order)
    most_values = most_values or BATCH_ELEMENTS
    while done < len(order):
        # At most a quarter more candidates than the cell with the fewest, to waste few values.
        most = ordered[done] * 5 // 4 + 1
        stop = int(np.searchsorted(ordered, most, side="right"))
        stop = min(stop, done + max(1, most_values // int(most * values_per_cell)))
        stop = min(stop, done + most_cells)
        cells = order[done:stop]
        rank = np.minimum(np.arange(ordered[stop - 1]), counts[cells, None] - 1)
        yield cells, candidates[starts[cells, None] + rank]
        done = stop


#: At fewer places than this, a call of NumPy for each map costs more than its slower argmax.
_FEW_PLACES = 4096


def first_maximum(values: Values) -> tuple[npt.NDArray[np.unsignedinteger[Any]], Values]:
    """Return the index of the largest of K values at each place, and that value.

    Of equal values the first wins.

    Args:
        values: (K, ...).
    """
    if values[0].size < _FEW_PLACES:
        return values.argmax(axis=0).astype(np.uint32), values.max(axis=0)
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
