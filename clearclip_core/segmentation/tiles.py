"""The exact argmax over maps that are linear in cells of an image, and there in its colours.

A map is known at the corners of cells. Between them its value at a pixel is bilinear (the cosine
of a query), or a linear function of the pixel's colour whose factors are bilinear (a map that a
guided filter has refined). So it is known for each cell how near a map can come to another one,
and in most cells one map alone can be the largest. Several are computed only in the few cells
where several can win, and the result is that of comparing all maps at every pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

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
_BAND_PX = 1 << 19

#: Pixels of a batch of cells: enough for the cost of calling torch to be small, and few enough for
#: the batch to stay in a CPU's cache.
_BATCH_PX = 128_000

_Array = TypeVar("_Array", Values, torch.Tensor)

_SIDES = slice(None, -1), slice(1, None)


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

    def values(self) -> Values:
        """Evaluate the first map at each pixel, the largest or not: (H, W)."""
        matrices = (axis.matrix.astype(self._maps.dtype) for axis in (self._rows, self._columns))
        corners = upsample(self._maps[:, :, :1], *matrices)
        rows, columns = len(self._rows.sizes_px), len(self._columns.sizes_px)

        values = np.empty((len(self._down), len(self._along)), self._maps.dtype)
        band = self._band(slice(0, rows), corners)
        self._evaluate_rows(band, np.zeros((rows, columns), np.intp), values)
        return values

    def _decide(self, cells: slice, labels: npt.NDArray[np.int16], with_values: bool) -> Values:
        """Decide the pixels of some rows of cells."""
        matrices = self._rows.matrix[cells.start : cells.stop + 1], self._columns.matrix
        corners = upsample(self._maps, *(each.astype(self._maps.dtype) for each in matrices))
        band = self._band(cells, corners)

        ranges = _colour_ranges(band.colours, band.first_row, self._columns.first_px)
        found = find_candidates(torch.from_numpy(corners), *ranges)
        large, rivals = (each.numpy() for each in found)

        owners = self._owners[large].repeat(self._columns.sizes_px, axis=1)
        for row, (top, bottom) in enumerate(pairwise(band.first_row.tolist())):
            labels[top:bottom] = owners[row]

        values = np.empty((len(labels), len(self._along) if with_values else 0), self._maps.dtype)
        if with_values:
            self._evaluate_rows(band, large, values)

        for some in self._ambiguous(large, rivals, band.heights_px):
            self._decide_between(band, some, labels, values if with_values else None)
        return values

    def _band(self, cells: slice, corners: Values) -> _Band:
        """Cut what rows of cells need out of the image; `corners` are theirs."""
        first_px = self._rows.first_px[cells.start : cells.stop + 1]
        start, stop = first_px[[0, -1]].tolist()
        return _Band(
            start_px=start,
            first_row=first_px - start,
            heights_px=self._rows.sizes_px[cells],
            colours=() if self._image is None else cv2.split(self._image[start:stop]),
            ends=cell_ends(corners),
        )

    def _evaluate_rows(self, band: _Band, large: Indices, values: Values) -> None:
        """Write the value of each cell's own map at its pixels, row of cells by row of cells.

        Args:
            band: m rows of n cells.
            large: (m, n), the largest map of each cell.
            values: (H, W) of the band; is written to.
        """
        own = large[:, None, None]
        own_ends = [  # (C, m, n) each
            np.take_along_axis(end, own, 2)[:, :, 0].swapaxes(0, 1) for end in band.ends
        ]
        functions = _interpolate(own_ends, self._columns.sizes_px, self._along)
        step = max(1, _BATCH_PX // len(self._along))
        for row, (top, bottom) in enumerate(pairwise(band.first_row.tolist())):
            for first in range(top, bottom, step):
                part = slice(first, min(first + step, bottom))
                down = self._down[band.start_px + part.start : band.start_px + part.stop, None]
                planes = [plane[part] for plane in band.colours]
                _evaluate(functions[:, row], down, planes, values[part])

    def _ambiguous(
        self, large: Indices, rivals: npt.NDArray[np.bool_], heights_px: Indices
    ) -> Iterator[_Rivals]:
        """Yield the cells in which several maps can win, in batches of one width.

        Without an image the width is that of the widest cell: pixels beyond a cell cost less than
        small batches. In an image they may not be there.
        """
        widths = self._columns.sizes_px
        y, x = np.nonzero(rivals.any(axis=1) & (heights_px[:, None] > 0))
        possible = rivals[y, :, x]
        possible[np.arange(len(y)), large[y, x]] = True
        of_cells = widths[x] if self._image is not None else np.full_like(x, widths.max())
        for width, own in _groups(of_cells):
            area = width * int(heights_px.max())
            own_y, own_x = y[own], x[own]
            for some, maps in candidate_batches(possible[own], area, max(1, _BATCH_PX // area)):
                yield _Rivals(own_y[some], own_x[some], width, maps)

    def _decide_between(
        self,
        band: _Band,
        cells: _Rivals,
        labels: npt.NDArray[np.int16],
        values: Values | None,
    ) -> None:
        """Write the labels of some cells of a band, and the largest values where asked for."""
        lines = band.lines(cells.y)
        best, largest = self._compare(band, cells, lines)
        for width, some in _groups(self._columns.sizes_px[cells.x]):
            at = lines[:, some], self._columns.first_px[cells.x[some]]
            _stretches(labels, width)[at] = best[:, some, :width]
            if values is not None:
                _stretches(values, width)[at] = largest[:, some, :width]

    def _compare(
        self, band: _Band, cells: _Rivals, lines: Indices
    ) -> tuple[npt.NDArray[np.int16], Values]:
        """Compute several maps in (h, N) lines of N cells: (h, N, width) labels and values."""
        y, x, width, maps = cells
        ends = [end[y[:, None], :, maps, x[:, None]].T for end in band.ends]  # (C, k, N) each
        left = self._columns.first_px[x]
        columns = np.minimum(left[:, None] + np.arange(width), len(self._along) - 1)
        functions = _interpolate(ends, width, self._along[columns].ravel())

        pixels = [
            _stretches(each, width)[lines, left].reshape(len(lines), -1) for each in band.colours
        ]
        down = self._down[lines + band.start_px]
        values = _evaluate(functions, down.repeat(width, axis=1), pixels)

        best, largest = first_maximum(values)
        first = np.arange(0, maps.size, maps.shape[1]).repeat(width)  # of each column's maps
        owners = self._owners[maps].ravel().take(best + first)
        shape = *lines.shape, width
        return owners.reshape(shape), largest.reshape(shape)


@dataclass(frozen=True, eq=False)
class _Band:
    """Some rows of cells: m of n cells, which are H x W pixels."""

    start_px: int  # the image's row that is the band's first
    first_row: Indices  # (m + 1,), first row of pixels of each row of cells, and H
    heights_px: Indices  # (m,), rows of pixels of each row of cells
    colours: Sequence[npt.NDArray[np.uint8]]  # three (H, W); none where there is no image
    ends: Sequence[Values]  # four (m, C, K, n), the maps at the corners of the cells

    def lines(self, y: Indices) -> Indices:
        """Return the rows of pixels of N rows of cells: (h, N), the last repeated in lower ones."""
        steps = np.arange(self.heights_px.max())[:, None]
        lines: Indices = self.first_row[y] + np.minimum(steps, self.heights_px[y] - 1)
        return lines


class _Rivals(NamedTuple):
    """N cells of a band in which k maps each can win."""

    y: Indices  # (N,), their rows of cells
    x: Indices  # (N,), their columns of cells
    width: int  # how many columns of pixels are computed of each
    maps: Indices  # (N, k)


def cell_ends(corners: _Array) -> list[_Array]:
    """Return the upper left, upper right, lower left and lower right of (m + 1, ..., n + 1)."""
    return [rows[..., side] for rows in (corners[:-1], corners[1:]) for side in _SIDES]


def _colour_ranges(
    colours: Sequence[npt.NDArray[np.uint8]], first_row: Indices, first_column: Indices
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ranges of colours in cells, as `find_candidates` takes them; none of none."""
    if not colours:
        return torch.empty(0, 1, 1, 1), torch.empty(0, 1, 1, 1)
    found = np.empty((2, 3, len(first_row) - 1, colours[0].shape[1]), np.int16)
    for row, (top, bottom) in enumerate(pairwise(first_row.tolist())):
        red, green, blue = (colour[top:bottom] for colour in colours)
        reds, blues = (np.subtract(each, green, dtype=np.int16) for each in (red, blue))
        for number, each in enumerate((reds, green, blues)):
            np.minimum.reduce(each, out=found[0, number, row])
            np.maximum.reduce(each, out=found[1, number, row])

    starts = first_column[:-1]
    low = torch.from_numpy(np.minimum.reduceat(found[0], starts, axis=2)[:, :, None]).float()
    high = torch.from_numpy(np.maximum.reduceat(found[1], starts, axis=2)[:, :, None]).float()
    return (high + low) / 2, (high - low) / 2


def find_candidates(
    corners: torch.Tensor, middle: torch.Tensor, half: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the maps that can win in cells, on any device.

    The bounds are of red less green, green, and blue less green: where a cell is lighter and
    darker in places, all colours rise and fall together, and the ranges of these stay small.

    Args:
        corners: (m + 1, C, K, n + 1), the maps at the corners of the cells.
        middle: (C - 1, m, 1, n), the middle of each of those three in the cells.
        half: the same of half its range.

    Returns:
        (m, n) a map that is large in each cell; and (m, K, n) which others reach it.
    """
    if len(middle):
        corners = corners.clone()
        corners[:, 1] = corners[:, :3].sum(dim=1)
    ends = torch.stack(cell_ends(corners))  # (4, m, C, K, n)
    most = _values(ends, middle)
    large = most.sum(dim=0).max(dim=1).indices
    own = torch.take_along_dim(ends, large[None, :, None, None], 3)
    least = _values(own, middle) - _MARGIN
    ahead = (ends[:, :, :-1] - own[:, :, :-1]).abs_()
    for factor, of_half in zip(ahead.unbind(dim=2), half, strict=True):
        most = torch.addcmul(most, factor, of_half)
    rivals = (most >= least).any(dim=0)
    rivals.scatter_(1, large[:, None], False)
    return large, rivals


def _groups(sizes: Indices) -> Iterator[tuple[int, Indices | slice]]:
    """Yield each size above 0, and where it is: nothing is copied where all sizes are one."""
    counts = np.bincount(sizes)
    for size in np.flatnonzero(counts).tolist():
        if size:
            all_are = counts[size] == len(sizes)
            yield size, slice(None) if all_are else np.flatnonzero(sizes == size)


def _values(functions: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Evaluate (4, m, C, K, n) functions at (C - 1, m, 1, n) colours: (4, m, K, n)."""
    *factors, values = functions.unbind(dim=2)
    for factor, colour in zip(factors, colours, strict=True):
        values = torch.addcmul(values, factor, colour)
    return values


def _evaluate(
    functions: Values,
    down: Values,
    colours: Sequence[npt.NDArray[np.uint8]],
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
        colour.copy_(torch.from_numpy(plane))
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
    """Return the first index of the largest of (K, ...) values at each place, and that value."""
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
