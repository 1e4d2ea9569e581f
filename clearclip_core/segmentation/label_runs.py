"""Runs of equal labels along the rows of a label map, and which of them touch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.segmentation.row_bands import row_bands
from clearclip_core.segmentation.run_mask import RunMask
from clearclip_core.thread_pools import one_thread

#: Pixels that are compared, and summed, at once: so many that calling NumPy costs little.
_COMPARED_PX = 1 << 20
_SUMMED_PX = 1 << 19

Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class LabelRuns:
    """The runs of a label map: each pixel is in one, no run goes on in the next row.

    Attributes:
        starts: (N,) int32, ascending: the first pixel of each run, as row times width plus column.
        labels: (N,) the label of each run, -1 for no label.
        size_hw: height and width of the label map in px.
    """

    starts: Int32s
    labels: npt.NDArray[Any]
    size_hw: tuple[int, int]

    @classmethod
    def of(cls, label_map: npt.NDArray[Any]) -> LabelRuns:
        """Find the runs of a label map (H, W).

        >>> LabelRuns.of(np.array([[0, 0, 2], [2, -1, -1]])).starts.tolist()
        [0, 2, 3, 4]
        """
        height, width = label_map.shape
        found = []
        for top, band in row_bands(label_map, _COMPARED_PX):
            line = band.ravel()
            begins = np.empty(line.shape, np.bool_)
            np.not_equal(line[1:], line[:-1], out=begins[1:])
            begins[:: max(1, width)] = True
            found.append((np.flatnonzero(begins) + top * width).astype(np.int32))
        starts = np.concatenate(found) if found else np.empty(0, np.int32)
        return cls(starts, label_map.ravel()[starts], (height, width))

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.starts)

    @cached_property
    def lengths(self) -> Int32s:
        """(N,) int32, pixels of each run."""
        height, width = self.size_hw
        return np.diff(self.starts, append=np.int32(height * width))

    @cached_property
    def touching_rows(self) -> tuple[Int32s, Int32s]:
        """(M,) the run above and (M,) the run below, of all pairs with pixels in one column.

        The pairs are in the order of their pixels, and no pair is there twice.
        """
        width = self.size_hw[1]
        last_row = int(np.searchsorted(self.starts, self._area - width))
        second_row = int(np.searchsorted(self.starts, width))
        above, below = self.starts[:last_row], self.starts[second_row:] - np.int32(width)
        # Between two boundaries of either row there is one run above and one below.
        both = np.concatenate([above, below])
        order = np.argsort(both, kind="stable")  # two ascending parts are merged
        ends = both[order]
        upper = np.cumsum(order < len(above), dtype=np.int32)  # runs up to here
        lower = np.arange(1, len(both) + 1, dtype=np.int32) - upper
        some = np.diff(ends, append=-1) != 0
        return upper[some] - np.int32(1), lower[some] + np.int32(second_row - 1)

    @cached_property
    def touching_corners(self) -> tuple[Int32s, Int32s]:
        """(M,) the run above and (M,) the run below, of pairs that share a corner alone."""
        upper, lower = self.touching_rows
        # Where both rows change at one column, two pairs of runs meet there. A row's first pair
        # follows the last of another row.
        meets = np.flatnonzero((upper[1:] != upper[:-1]) & (lower[1:] != lower[:-1])) + 1
        meets = meets[self.starts[upper[meets]] % self.size_hw[1] != 0]
        return (
            np.concatenate([upper[meets - 1], upper[meets]]),
            np.concatenate([lower[meets], lower[meets - 1]]),
        )

    @cached_property
    def touching_columns(self) -> tuple[Int32s, Int32s]:
        """(M,) the run on the left and (M,) that on the right, of neighbours in one row."""
        right = np.flatnonzero(self.starts % self.size_hw[1] != 0).astype(np.int32)
        return right - 1, right

    @cached_property
    def touches_border(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, whether a run has a pixel at the border of the label map."""
        width = self.size_hw[1]
        ends = self.starts + self.lengths
        sides = (self.starts % width == 0) | (ends % width == 0)
        ends_of_map = (self.starts < width) | (ends > self._area - width)
        return np.asarray(sides | ends_of_map)

    def mask(self, runs: npt.NDArray[Any]) -> RunMask:
        """Return the mask of some runs.

        Args:
            runs: (M,) indices of runs, ascending.

        >>> runs = LabelRuns.of(np.array([[0, 0, 2], [2, -1, -1]]))
        >>> runs.mask(np.array([1, 2])).to_mask().tolist()
        [[False, False, True], [True, False, False]]
        """
        starts = self.starts[runs].astype(np.int64)
        return RunMask.joined(starts, starts + self.lengths[runs], self.size_hw)

    def renumbered(self, numbers: npt.NDArray[Any]) -> tuple[LabelRuns, npt.NDArray[np.intp]]:
        """Return the runs of the label map in which labels have other numbers.

        Args:
            numbers: (labels + 1,) the new number of each label, the last one that of -1.

        Returns:
            The runs; and (M,) the first of this map's runs in each of them.

        >>> runs = LabelRuns.of(np.array([[0, 1, 2], [2, 0, -1]]))
        >>> runs.renumbered(np.array([0, 0, -1, -1]))[0].starts.tolist()
        [0, 2, 3, 4, 5]
        """
        labels = numbers[self.labels]
        begins = self.starts % self.size_hw[1] == 0
        begins[1:] |= labels[1:] != labels[:-1]
        first = np.flatnonzero(begins)
        return LabelRuns(self.starts[first], labels[first], self.size_hw), first

    @one_thread()
    def sums(self, values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Sum values (H, W) over each run: (N,) float64.

        >>> LabelRuns.of(np.array([[0, 0, 2]])).sums(np.array([[0.5, 1.0, 4.0]])).tolist()
        [1.5, 4.0]
        """
        sums: list[npt.NDArray[np.float64]] = [np.empty(0)]
        single, double = (torch.empty(0, dtype=dtype) for dtype in (torch.float32, torch.float64))
        for top, band in row_bands(values, _SUMMED_PX):
            first = top * band.shape[1]
            some = slice(*np.searchsorted(self.starts, [first, first + band.size]))
            numbers = band.ravel()
            if not (numbers.flags.writeable and numbers.dtype.isnative):  # torch takes no others
                numbers = numbers.astype(np.float64)
            line = torch.from_numpy(numbers)
            if line.dtype == torch.float16:  # twice converted in less time than once
                line = single.resize_(line.shape).copy_(line)
            line = double.resize_(line.shape).copy_(line)
            # Numbers that have to be converted, or a place for the sums, keep the interpreter.
            sums.append(np.add.reduceat(line.numpy(), self.starts[some] - first))
        return np.concatenate(sums)

    @property
    def _area(self) -> int:
        return self.size_hw[0] * self.size_hw[1]
