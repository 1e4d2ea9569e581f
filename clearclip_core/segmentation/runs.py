"""Masks and label maps as runs of equal pixels, and their connected components."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from clearclip_core.thread_pools import one_thread

BoolMask = npt.NDArray[np.bool_]

_BAND_PX = 1 << 18  # pixels of a band


def row_bands(
    array: npt.NDArray[Any], band_px: int | None = None
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Iterate over bands of whole rows of an array (H, W): the first row, and a view (h, W).

    By default a band has so few pixels that they stay in the cache.
    """
    height, width = array.shape
    rows_at_once = max(1, (band_px or _BAND_PX) // max(1, width))
    for top in range(0, height, rows_at_once):
        yield top, array[top : top + rows_at_once]


Int64s = npt.NDArray[np.int64]
PixelBox = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True, eq=False)
class RunMask:
    """The runs of a mask's pixels, row after row as one long line.

    No two runs touch, so a run may go on in the next row. A mask of a photograph has some
    thousands, where it has millions of pixels.
    """

    starts: Int64s  #: (N,) int64, ascending, first pixel of each run (row * width + column)
    ends: Int64s  #: (N,) int64, the pixel behind each run
    size_hw: tuple[int, int]  #: height and width of the mask in px

    @classmethod
    def of(cls, mask: BoolMask) -> RunMask:
        """Find the runs of a mask (H, W) bool.

        Args:
            mask: (H, W) bool.

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

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int((self.ends - self.starts).sum())

    @property
    def box(self) -> PixelBox:
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

        Args:
            values: (H, W), of any floating type.

        >>> RunMask.of(np.array([[True, False, True]])).mean(np.array([[0.5, 9.0, 1.0]]))
        0.75
        """
        if not len(self.starts):
            return 0.0
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

    def _edges(self, runs: slice) -> Int64s:
        """Return (2 M,) the starts and ends of some runs by turns, ascending."""
        return np.stack([self.starts[runs], self.ends[runs]], axis=1).ravel()


#: Pixels that are compared, and summed, at once: enough for calling NumPy to cost little.
_COMPARED_PX = 1 << 20
_SUMMED_PX = 1 << 19

Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class LabelRuns:
    """The runs of a label map: each pixel is in one, no run goes on in the next row."""

    starts: Int32s  # (N,) int32, ascending: the first pixel of each run, row by row
    labels: npt.NDArray[Any]  # (N,) the label of each run, -1 for no label
    size_hw: tuple[int, int]  # height and width of the label map in px

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
        import torch  # takes seconds, which masks alone do not need

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


Pairs = tuple[Int32s, Int32s]


@dataclass(frozen=True, eq=False)
class RunComponents:
    """The parts of a label map."""

    runs: LabelRuns

    @cached_property
    def part_of_run(self) -> Int32s:
        """(N,) the number of each run's part, by 4-connectivity."""
        return _components(len(self.runs), self._with_one_label(self.runs.touching_rows))

    @cached_property
    def areas(self) -> npt.NDArray[np.int64]:
        """(parts,) area of each part by 4-connectivity, in px."""
        return _sums(self.part_of_run, self.runs.lengths)

    @cached_property
    def labels(self) -> npt.NDArray[Any]:
        """(parts,) label of each part."""
        labels = np.empty(len(self.areas), self.runs.labels.dtype)
        labels[self.part_of_run] = self.runs.labels
        return labels

    def islands(self, min_px: int) -> BoolMask:
        """Return which parts are in an island: one of fewer than `min_px` px by 8-connectivity.

        Returns:
            (parts,) bool.
        """
        if min_px <= 1:
            return np.zeros(len(self.areas), np.bool_)
        corners = self._parts(self._with_one_label(self.runs.touching_corners))
        joined = _components(len(self.areas), corners)
        island: BoolMask = (_sums(joined, self.areas) < min_px)[joined]
        return island

    def holes(self, dropped: BoolMask, max_px: int) -> Iterator[tuple[int, Int32s]]:
        """Find the holes of each label: of fewer than `max_px` px, not at the border.

        Args:
            dropped: (parts,) bool, parts that are in no label's mask.
            max_px: area in px.

        Yields:
            A label, and the (M,) parts that lie in a hole of it. A label may come twice.
        """
        kept = ~dropped & (self.labels >= 0)
        inner = np.ones(len(self.areas), np.bool_)
        inner[self.part_of_run[self.runs.touches_border]] = False

        small = inner & (self.areas < max_px)
        if max_px <= 1 or not small.any():
            return

        one, other = self._neighbours
        between = small[one] & small[other]
        clusters = _components(len(small), (one[between], other[between]))
        mixed = np.zeros(len(small), np.bool_)
        mixed[clusters[small & kept]] = True

        # A cluster of parts that no mask has is a hole of the one label around it, if there is one.
        plain = small & ~mixed[clusters]
        for label, parts in self._surrounded(plain, clusters, kept, max_px):
            yield label, parts

        # In any other cluster, a small part is inside the masks of one label and outside others.
        for label in np.unique(self._labels_around(small & ~plain, clusters, kept)).tolist():
            own = kept & (self.labels == label)
            outside = small & ~plain & ~own
            edges = outside[one] & outside[other]
            parts_of = _components(len(small), (one[edges], other[edges]))
            yield from self._surrounded(outside, parts_of, own, max_px)

    def _surrounded(
        self, members: BoolMask, clusters: Int32s, kept: BoolMask, max_px: int
    ) -> Iterator[tuple[int, Int32s]]:
        """Yield the clusters of members with parts of one kept label around them, by label.

        Two neighbours that are members share a cluster. Larger clusters than `max_px` are none.
        """
        count = int(clusters.max()) + 1
        one, other = self._neighbours
        both = np.concatenate([one, other]), np.concatenate([other, one])
        rim = members[both[0]] & ~members[both[1]]
        inside, outside = clusters[both[0][rim]], both[1][rim]
        labels = np.where(kept[outside], self.labels[outside], -1).astype(np.int64)
        least, most = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
        np.minimum.at(least, inside, labels)
        np.maximum.at(most, inside, labels)
        area = _sums(clusters[members], self.areas[members], count)
        hole = (least == most) & (most >= 0) & (area < max_px)
        parts = np.flatnonzero(members & hole[clusters]).astype(np.int32)
        labels_of = most[clusters[parts]]
        for label in np.unique(labels_of).tolist():
            yield label, parts[labels_of == label]

    def _labels_around(
        self, members: BoolMask, clusters: Int32s, kept: BoolMask
    ) -> npt.NDArray[Any]:
        one, other = self._neighbours
        near = members.copy()
        near[other[members[one]]] = True
        near[one[members[other]]] = True
        return self.labels[near & kept]

    @cached_property
    def _neighbours(self) -> Pairs:
        """(M,) and (M,): parts that share an edge of a pixel, each pair once."""
        touching = zip(self.runs.touching_rows, self.runs.touching_columns, strict=True)
        one, other = self._parts(tuple(np.concatenate(each) for each in touching))
        different = one != other
        count, pair = len(self.areas), np.stack([one[different], other[different]])
        pairs = np.unique(pair.min(axis=0) * np.int64(count) + pair.max(axis=0))
        least, most = np.divmod(pairs, max(1, count))
        return least.astype(np.int32), most.astype(np.int32)

    def _parts(self, runs: tuple[Any, ...]) -> Pairs:
        one, other = runs
        return self.part_of_run[one], self.part_of_run[other]

    def _with_one_label(self, pairs: Pairs) -> Pairs:
        one, other = pairs
        same = self.runs.labels[one] == self.runs.labels[other]
        return one[same], other[same]


def _components(count: int, edges: Pairs) -> Int32s:
    """Number the connected components of a graph: (count,) int32."""
    one, other = edges
    from scipy.sparse import coo_array  # slow to import, which no help of a command needs
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(count, count))
    return np.asarray(connected_components(graph.tocsr(), directed=False)[1], np.int32)


def _sums(
    numbers: Int32s, values: npt.NDArray[Any], count: int | None = None
) -> npt.NDArray[np.int64]:
    """Sum values by number: (count,) int64; exact below 2^53."""
    least = 0 if count is None else count
    return np.bincount(numbers, weights=values, minlength=least).astype(np.int64)
