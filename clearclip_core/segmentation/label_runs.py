"""Runs of equal labels along the rows of a label map, and which of them touch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Int32s = npt.NDArray[np.int32]

#: Pixels that are compared with their neighbours at once.
_BAND_PX = 1 << 20


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
        rows_at_once = max(1, _BAND_PX // max(1, width))
        found = []
        for top in range(0, height, rows_at_once):
            band = label_map[top : top + rows_at_once]
            begins = np.empty(band.shape, np.bool_)
            begins[:, :1] = True
            np.not_equal(band[:, 1:], band[:, :-1], out=begins[:, 1:])
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
        ends = np.union1d(above, below)
        upper = np.searchsorted(above, ends, side="right") - 1
        lower = np.searchsorted(below, ends, side="right") - 1 + second_row
        return upper.astype(np.int32), lower.astype(np.int32)

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

    def pixels(self, runs: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the pixels of some runs, as row times width plus column.

        Args:
            runs: (M,) indices of runs.

        >>> runs = LabelRuns.of(np.array([[0, 0, 2], [2, -1, -1]]))
        >>> runs.pixels(np.array([3, 0])).tolist()
        [4, 5, 0, 1]
        """
        lengths = self.lengths[runs].astype(np.int64)
        first: npt.NDArray[np.int64] = self.starts[runs] - np.cumsum(lengths) + lengths
        offsets = np.repeat(first, lengths)
        offsets += np.arange(len(offsets))
        return offsets

    @property
    def _area(self) -> int:
        return self.size_hw[0] * self.size_hw[1]
