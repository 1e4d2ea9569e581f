"""The masks of all labels of a label map, without small islands and holes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.label_runs import LabelRuns
from clearclip_core.segmentation.masks import BoolMask, drop_islands, fill_holes
from clearclip_core.segmentation.run_components import RunComponents
from clearclip_core.segmentation.run_mask import RunMask

#: Runs take some 60 bytes each. A label map with more of them than this share of its pixels is
#: noise, and each of its masks is cleaned by itself, in 5 bytes a pixel.
_MOST_RUNS = 1 / 16

_NO_RUNS = np.empty(0, np.int64)


class LabelMasks:
    """Masks of a label map's labels, made one at a time when they are asked for.

    Islands and holes of all labels are found at once, see `RunComponents`.

    Args:
        label_map: (H, W) int, index of the label or -1.
        min_island_px: connected parts (8-connectivity) of fewer pixels are dropped.
        min_hole_px: holes (4-connectivity) of fewer pixels are filled. What touches the border
            is no hole.
        confidence: (H, W) float, of which `mean_confidence` is the mean.
        numbers: (labels + 1,) the number of the mask that each label is in, -1 for none; the last
            one that of -1. By default each label has a mask of its own number.
    """

    def __init__(
        self,
        label_map: npt.NDArray[Any],
        min_island_px: int = 0,
        min_hole_px: int = 0,
        confidence: npt.NDArray[np.floating[Any]] | None = None,
        numbers: npt.NDArray[Any] | None = None,
    ) -> None:
        runs = LabelRuns.of(label_map)
        sums = None if confidence is None else runs.sums(confidence)
        self._start(runs, min_island_px, min_hole_px, sums, numbers)

    @classmethod
    def of_runs(
        cls,
        runs: LabelRuns,
        min_island_px: int = 0,
        min_hole_px: int = 0,
        sums: npt.NDArray[np.float64] | None = None,
        numbers: npt.NDArray[Any] | None = None,
    ) -> LabelMasks:
        """Make the masks of a label map that is given as runs.

        Args:
            runs: of the label map.
            min_island_px: see the class.
            min_hole_px: see the class.
            sums: (N,) float64, the confidence of each run's pixels, summed.
            numbers: see the class.
        """
        masks = cls.__new__(cls)
        masks._start(runs, min_island_px, min_hole_px, sums, numbers)
        return masks

    def _start(
        self,
        runs: LabelRuns,
        min_island_px: int,
        min_hole_px: int,
        sums: npt.NDArray[np.float64] | None,
        numbers: npt.NDArray[Any] | None,
    ) -> None:
        if numbers is not None:
            runs, first = runs.renumbered(numbers)
            sums = None if sums is None else np.add.reduceat(sums, first)
        self._least_px = min_island_px, min_hole_px
        self._runs, self._sums = runs, sums
        self._runs_of = {label: some for label, some in _by_label(self._runs.labels) if label >= 0}
        is_noise = len(runs) > _MOST_RUNS * runs.size_hw[0] * runs.size_hw[1]
        self._uncleaned = set(self._runs_of) if is_noise else set()
        if not is_noise and max(self._least_px) > 1:
            self._clean()

    @property
    def labels(self) -> list[int]:
        """Indices of the labels with a pixel in the label map, ascending."""
        return list(self._runs_of)

    def runs(self, label: int) -> RunMask:
        """Return the mask of a label as runs; without any if the label has no pixel."""
        return self._runs.mask(self._indices(label))

    def mask(self, label: int) -> BoolMask:
        """Draw the mask of a label.

        Returns:
            (H, W) bool, which takes memory only where the label is.
        """
        return self.runs(label).to_mask()

    def mean_confidence(self, label: int) -> float:
        """Compute the mean confidence in the mask of a label, in float64; 0 for an empty mask.

        Raises:
            ValueError: there is no confidence.
        """
        if self._sums is None:
            raise ValueError("Expected argument `confidence` to be given, but got None.")
        runs = self._indices(label)
        area = int(self._runs.lengths[runs].sum(dtype=np.int64))
        return float(self._sums[runs].sum()) / area if area else 0.0

    def __iter__(self) -> Iterator[tuple[int, BoolMask]]:
        """Yield each label that has a pixel left, ascending, and its mask."""
        for label in self.labels:
            runs = self.runs(label)
            if runs.area:
                yield label, runs.to_mask()

    def _indices(self, label: int) -> npt.NDArray[np.int64]:
        """Return the indices of the runs in the mask of a label; of noise, it is cleaned first."""
        runs = self._runs_of.get(label, _NO_RUNS)
        if label in self._uncleaned:
            plain = self._runs.mask(runs)
            mask = plain.to_mask()
            own = mask[plain.box]  # a view
            own[:] = fill_holes(drop_islands(own, self._least_px[0]), self._least_px[1])
            # What is dropped and filled are whole runs.
            runs = self._runs_of[label] = np.flatnonzero(mask.reshape(-1)[self._runs.starts])
            self._uncleaned.remove(label)
        return runs

    def _clean(self) -> None:
        """Take islands away from the runs of each label, and add its holes."""
        components = RunComponents(self._runs)
        islands = components.islands(self._least_px[0])
        is_kept = ~islands[components.part_of_run]
        runs_of = {label: [runs[is_kept[runs]]] for label, runs in self._runs_of.items()}
        order = np.argsort(components.part_of_run, kind="stable")
        ends = np.searchsorted(components.part_of_run[order], np.arange(len(islands) + 1))
        for label, parts in components.holes(islands, self._least_px[1]):
            runs_of[label] += [order[ends[part] : ends[part + 1]] for part in parts.tolist()]
        self._runs_of = {label: np.unique(np.concatenate(some)) for label, some in runs_of.items()}


def label_masks(
    label_map: npt.NDArray[Any], min_island_px: int = 0, min_hole_px: int = 0
) -> dict[int, BoolMask]:
    """Make one mask for each label of a label map, without small islands and holes.

    Islands are searched in the label map itself, so the masks stay disjoint unless holes are
    filled.

    Args:
        label_map: (H, W) int, index of the label or -1.
        min_island_px: connected parts of fewer pixels are dropped.
        min_hole_px: holes of fewer pixels are filled.

    Returns:
        Index of the label -> (H, W) bool, in ascending order; labels without a pixel left are
        left out.

    >>> label_masks(np.array([[0, 0, -1, 2]]))[0].tolist()
    [[True, True, False, False]]
    """
    return dict(LabelMasks(label_map, min_island_px, min_hole_px))


def _by_label(labels: npt.NDArray[Any]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield each label of some runs (N,), ascending, and the indices of its runs, ascending."""
    order = np.argsort(labels, kind="stable")
    changes = np.flatnonzero(np.diff(labels[order])) + 1
    for some in np.split(order, changes):
        if len(some):
            yield int(labels[some[0]]), some
