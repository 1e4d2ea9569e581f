"""The masks of all labels of a label map, without small islands and holes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.label_runs import LabelRuns
from clearclip_core.segmentation.masks import BoolMask, drop_islands, fill_holes
from clearclip_core.segmentation.run_components import RunComponents

#: Runs take some 60 bytes each. A label map with more of them than this share of its pixels is
#: noise, and each of its masks is cleaned by itself, in 5 bytes a pixel.
_MOST_RUNS = 1 / 16

Box = tuple[slice, slice]


class LabelMasks:
    """Masks of a label map's labels, made one at a time when they are asked for.

    Islands and holes of all labels are found at once, see `RunComponents`.

    Args:
        label_map: (H, W) int, index of the label or -1. It is kept, and must not be changed.
        min_island_px: connected parts (8-connectivity) of fewer pixels are dropped.
        min_hole_px: holes (4-connectivity) of fewer pixels are filled. What touches the border
            is no hole.
    """

    def __init__(
        self, label_map: npt.NDArray[Any], min_island_px: int = 0, min_hole_px: int = 0
    ) -> None:
        self._label_map = label_map
        self._least_px = min_island_px, min_hole_px
        runs = LabelRuns.of(label_map)
        self._boxes = _boxes(runs)
        self._is_noise = len(runs) > _MOST_RUNS * label_map.size
        self._cleared: dict[int, npt.NDArray[np.int64]] = {}
        self._filled: dict[int, npt.NDArray[np.int64]] = {}
        if not self._is_noise and max(self._least_px) > 1:
            self._clean(runs)

    @property
    def labels(self) -> list[int]:
        """Indices of the labels with a pixel in the label map, ascending."""
        return list(self._boxes)

    def mask(self, label: int) -> BoolMask:
        """Make the mask of a label.

        Returns:
            (H, W) bool, which takes memory only where the label is.
        """
        whole = np.zeros(self._label_map.shape, np.bool_)
        if label not in self._boxes:
            return whole
        box = self._boxes[label]
        if self._is_noise:
            own = self._label_map[box] == label
            whole[box] = fill_holes(drop_islands(own, self._least_px[0]), self._least_px[1])
            return whole
        np.equal(self._label_map[box], label, out=whole[box])
        flat = whole.reshape(-1)
        if label in self._cleared:
            flat[self._cleared[label]] = False
        if label in self._filled:
            flat[self._filled[label]] = True
        return whole

    def __iter__(self) -> Iterator[tuple[int, BoolMask]]:
        """Yield each label that has a pixel left, ascending, and its mask."""
        for label in self._boxes:
            mask = self.mask(label)
            if mask[self._boxes[label]].any():
                yield label, mask

    def _clean(self, runs: LabelRuns) -> None:
        """Find the pixels of each label's islands and holes."""
        components = RunComponents(runs)
        islands = components.islands(self._least_px[0])
        dropped = np.flatnonzero(islands[components.part_of_run] & (runs.labels >= 0))
        self._cleared = {
            label: runs.pixels(some) for label, some in _by_label(dropped, runs.labels[dropped])
        }
        order = np.argsort(components.part_of_run, kind="stable")
        ends = np.searchsorted(components.part_of_run[order], np.arange(len(islands) + 1))
        filled = defaultdict(list)
        for label, parts in components.holes(islands, self._least_px[1]):
            of_parts = [order[ends[part] : ends[part + 1]] for part in parts.tolist()]
            filled[label].append(runs.pixels(np.concatenate(of_parts)))
        self._filled = {label: np.concatenate(some) for label, some in filled.items()}


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


def _boxes(runs: LabelRuns) -> dict[int, Box]:
    """Return the bounding box of each label from 0 on, by ascending label."""
    width = runs.size_hw[1]
    boxes = {}
    for label, some in _by_label(np.arange(len(runs)), runs.labels):
        if label >= 0:
            rows, left = np.divmod(runs.starts[some], width)
            right = left + runs.lengths[some]
            boxes[label] = (
                slice(int(rows[0]), int(rows[-1]) + 1),
                slice(int(left.min()), int(right.max())),
            )
    return boxes


def _by_label(
    runs: npt.NDArray[Any], labels: npt.NDArray[Any]
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield each label, ascending, and its runs in their order."""
    order = np.argsort(labels, kind="stable")
    changes = np.flatnonzero(np.diff(labels[order])) + 1
    for some in np.split(order, changes):
        if len(some):
            yield int(labels[some[0]]), runs[some]
