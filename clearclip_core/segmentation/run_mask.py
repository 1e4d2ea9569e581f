"""A mask as the runs of its pixels: the form in which it is measured, joined and written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.masks import BoolMask
from clearclip_core.segmentation.row_bands import row_bands

#: Pixels are looked up one by one where there are so many between them.
_SPARSE = 16

Int64s = npt.NDArray[np.int64]
Box = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True, eq=False)
class RunMask:
    """The runs of a mask's pixels, row after row as one long line.

    No two runs touch, so a run may go on in the next row. A mask of a photograph has some
    thousands, where it has millions of pixels.

    Attributes:
        starts: (N,) int64, ascending: the first pixel of each run, as row times width plus column.
        ends: (N,) int64, the pixel behind each run.
        size_hw: height and width of the mask in px.
    """

    starts: Int64s
    ends: Int64s
    size_hw: tuple[int, int]

    @classmethod
    def of(cls, mask: BoolMask) -> RunMask:
        """Find the runs of a mask (H, W) bool.

        >>> RunMask.of(np.array([[False, True], [True, False]]))
        RunMask(starts=array([1]), ends=array([3]), size_hw=(2, 2))
        """
        height, width = mask.shape
        starts: list[Int64s] = [np.empty(0, np.int64)]
        ends: list[Int64s] = [np.empty(0, np.int64)]
        for top, rows in row_bands(mask):
            if rows.any():
                line = rows.ravel()
                changes = np.flatnonzero(line[1:] != line[:-1]) + 1  # of bool: 4 times as fast
                first, last = np.flatnonzero(line[:1]), np.flatnonzero(line[-1:]) + line.size
                edges = np.concatenate([first, changes, last]) + top * width
                starts.append(edges[::2])
                ends.append(edges[1::2])
        return cls.joined(np.concatenate(starts), np.concatenate(ends), (height, width))

    @classmethod
    def joined(cls, starts: Int64s, ends: Int64s, size_hw: tuple[int, int]) -> RunMask:
        """Join runs that touch or overlap.

        Args:
            starts: (M,) int64, ascending.
            ends: (M,) int64.
            size_hw: height and width of the mask in px.
        """
        if not len(starts):
            return cls(starts, ends, size_hw)
        reached = np.maximum.accumulate(ends)
        begins = np.concatenate([[True], starts[1:] > reached[:-1]])
        last = np.append(np.flatnonzero(begins)[1:], len(starts)) - 1
        return cls(starts[begins], reached[last], size_hw)

    @classmethod
    def union(cls, masks: Iterable[RunMask], size_hw: tuple[int, int]) -> RunMask:
        """Return the pixels that are in any of some masks of one size.

        >>> masks = [RunMask.of(np.array([[True, False]])), RunMask.of(np.array([[True, True]]))]
        >>> RunMask.union(masks, (1, 2)).area
        2
        """
        all_masks = list(masks)
        starts = np.concatenate([np.empty(0, np.int64), *(mask.starts for mask in all_masks)])
        ends = np.concatenate([np.empty(0, np.int64), *(mask.ends for mask in all_masks)])
        order = np.argsort(starts, kind="stable")
        return cls.joined(starts[order], ends[order], size_hw)

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int((self.ends - self.starts).sum())

    @property
    def box(self) -> Box:
        """The rows and columns of the mask; empty ones where it has no pixel."""
        if not len(self.starts):
            return slice(0, 0), slice(0, 0)
        width = self.size_hw[1]
        rows, left = np.divmod(self.starts, width)
        last_rows, right = np.divmod(self.ends - 1, width)
        own_rows = slice(int(rows[0]), int(last_rows[-1]) + 1)
        if (last_rows > rows).any():  # a run that goes on in the next row touches both sides
            return own_rows, slice(0, width)
        return own_rows, slice(int(left.min()), int(right.max()) + 1)

    def to_mask(self) -> BoolMask:
        """Draw the mask: (H, W) bool, which takes memory only where it has pixels."""
        whole = np.zeros(self.size_hw, np.bool_)
        if len(self.starts):
            first = int(self.starts[0])
            edges = self._edges(slice(None))
            inside = np.ones(len(edges) - 1, np.bool_)
            inside[1::2] = False
            whole.reshape(-1)[first : int(self.ends[-1])] = np.repeat(inside, np.diff(edges))
        return whole

    def mean(self, values: npt.NDArray[np.floating[Any]]) -> float:
        """Compute the mean of values (H, W) over the pixels, in float64; 0 without a pixel.

        >>> RunMask.of(np.array([[True, False, True]])).mean(np.array([[0.5, 9.0, 1.0]]))
        0.75
        """
        if not len(self.starts):
            return 0.0
        if self.area * _SPARSE < self.ends[-1] - self.starts[0]:
            return float(values.ravel()[self._pixels()].mean(dtype=np.float64))
        total = 0.0
        for top, rows in row_bands(values):
            first = top * rows.shape[1]
            begin = int(np.searchsorted(self.ends, first, "right"))
            end = int(np.searchsorted(self.starts, first + rows.size))
            if begin < end:
                edges = (self._edges(slice(begin, end)) - first).clip(0, rows.size)
                edges = edges[:-1] if edges[-1] == rows.size else edges
                sums = np.add.reduceat(rows.ravel(), edges, dtype=np.float64)
                total += float(sums[::2].sum())
        return total / self.area

    def common(self, other: RunMask) -> RunMask:
        """Return the pixels that are in another mask of the same size, too."""
        both = RunMask.union([self._inverted(), other._inverted()], self.size_hw)
        return both._inverted()

    def _inverted(self) -> RunMask:
        """Return the pixels that are not in the mask."""
        starts = np.concatenate([np.zeros(1, np.int64), self.ends])
        ends = np.append(self.starts, np.int64(self.size_hw[0] * self.size_hw[1]))
        some = starts < ends
        return RunMask(starts[some], ends[some], self.size_hw)

    def _pixels(self) -> Int64s:
        """Return (area,) the pixels, ascending."""
        lengths = self.ends - self.starts
        first: Int64s = self.starts - np.cumsum(lengths) + lengths
        return np.repeat(first, lengths) + np.arange(self.area)

    def _edges(self, runs: slice) -> Int64s:
        """Return (2 M,) the starts and ends of some runs by turns, ascending."""
        return np.stack([self.starts[runs], self.ends[runs]], axis=1).ravel()
