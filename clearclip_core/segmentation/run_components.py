"""Islands and holes of all labels of a label map at once, found in its runs.

A part is a connected set of pixels with one label. Islands of a label are its parts by
8-connectivity. A hole of a label is made of whole parts by 4-connectivity of other labels, so holes
are searched among the small parts alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from clearclip_core.segmentation.label_runs import Int32s, LabelRuns

Bools = npt.NDArray[np.bool_]
Pairs = tuple[Int32s, Int32s]


@dataclass(frozen=True, eq=False)
class RunComponents:
    """The parts of a label map.

    Attributes:
        runs: the runs of the label map.
    """

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

    def islands(self, min_px: int) -> Bools:
        """Return which parts are in an island: one of fewer than `min_px` px by 8-connectivity.

        Returns:
            (parts,) bool.
        """
        if min_px <= 1:
            return np.zeros(len(self.areas), np.bool_)
        corners = self._parts(self._with_one_label(self.runs.touching_corners))
        joined = _components(len(self.areas), corners)
        island: Bools = (_sums(joined, self.areas) < min_px)[joined]
        return island

    def holes(self, dropped: Bools, max_px: int) -> Iterator[tuple[int, Int32s]]:
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
        self, members: Bools, clusters: Int32s, kept: Bools, max_px: int
    ) -> Iterator[tuple[int, Int32s]]:
        """Yield the clusters of members with parts of one kept label around them, by label.

        Args:
            members: (parts,) bool.
            clusters: (parts,) the cluster of each part; two neighbours that are members share one.
            kept: (parts,) bool, parts that are in the masks.
            max_px: clusters have fewer px.
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

    def _labels_around(self, members: Bools, clusters: Int32s, kept: Bools) -> npt.NDArray[Any]:
        """Return the kept labels of members and of their neighbours."""
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
        """Return the parts of pairs of runs."""
        one, other = runs
        return self.part_of_run[one], self.part_of_run[other]

    def _with_one_label(self, pairs: Pairs) -> Pairs:
        """Return the pairs of runs with one label."""
        one, other = pairs
        same = self.runs.labels[one] == self.runs.labels[other]
        return one[same], other[same]


def _components(count: int, edges: Pairs) -> Int32s:
    """Number the connected components of a graph: (count,) int32."""
    one, other = edges
    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(count, count))
    return np.asarray(connected_components(graph.tocsr(), directed=False)[1], np.int32)


def _sums(
    numbers: Int32s, values: npt.NDArray[Any], count: int | None = None
) -> npt.NDArray[np.int64]:
    """Sum values by number: (count,) int64; exact below 2^53."""
    least = 0 if count is None else count
    return np.bincount(numbers, weights=values, minlength=least).astype(np.int64)
