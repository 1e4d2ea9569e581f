"""Boolean masks: small islands dropped, small holes filled, boundary bands."""

import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.runs import BoolMask, LabelRuns, PixelBox, RunComponents, RunMask


def drop_islands(mask: BoolMask, min_px: int) -> BoolMask:
    """Drop connected parts (8-connectivity) of fewer than `min_px` pixels.

    Args:
        mask: (H, W) bool.
        min_px: the fewest pixels of a part that stays.

    Returns:
        (H, W) bool, a new array.

    >>> drop_islands(np.array([[True, False, True, True]]), 2).tolist()
    [[False, False, True, True]]
    """
    box = bounding_box(mask)
    if min_px <= 1 or not mask[box].size:
        return mask.copy()
    kept = np.zeros_like(mask)
    parts, areas = _connected(mask[box], connectivity=8)
    keep = areas >= min_px
    keep[0] = False  # part 0 is everything outside the mask
    kept[box] = keep[parts]
    return kept


def fill_holes(mask: BoolMask, max_px: int) -> BoolMask:
    """Fill holes of fewer than `max_px` pixels in a mask (H, W) bool: a new array.

    A part that touches the border is no hole.
    """
    filled, box = mask.copy(), bounding_box(mask)
    if max_px <= 1 or not mask[box].size:
        return filled
    parts, areas = _connected(~mask[box], connectivity=4)
    fill = areas < max_px
    fill[0] = False  # part 0 is the mask itself
    for edge in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        fill[edge] = False
    filled[box] |= fill[parts]
    return filled


def boundary_band(mask: BoolMask, share: float = 0.02) -> BoolMask:
    """Return the band of a mask along its edge; the image's border counts as an edge.

    Two such bands compared give the boundary IoU of Cheng et al., *Boundary IoU: Improving
    Object-Centric Image Segmentation Evaluation*, CVPR 2021.

    Args:
        mask: (H, W) bool.
        share: width of the band as a share of the image's diagonal, by default that of the paper
            above. The band is at least a pixel wide.

    Returns:
        (H, W) bool, a new array.

    >>> boundary_band(np.ones((3, 5), dtype=bool)).astype(int)
    array([[1, 1, 1, 1, 1],
           [1, 0, 0, 0, 1],
           [1, 1, 1, 1, 1]])
    """
    width = max(1, round(share * math.hypot(*mask.shape)))
    band, box = np.zeros_like(mask), bounding_box(mask)
    padded = np.pad(mask[box].view(np.uint8), 1)
    # Chebyshev distance to the nearest pixel outside: the number of erosions by 3 x 3 squares.
    steps = cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1]
    band[box] = mask[box] & (steps <= width)
    return band


def bounding_box(mask: BoolMask) -> PixelBox:
    """Return the rows and columns of a mask (H, W) bool; empty ones where it has no pixel."""
    left, top, columns, rows = cv2.boundingRect(mask.view(np.uint8))
    return slice(top, top + rows), slice(left, left + columns)


def _connected(
    mask: BoolMask, connectivity: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Number the connected parts: (h, w) numbers, 0 outside the mask, and (parts,) areas in px."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=connectivity
    )
    return np.asarray(parts, np.int32), np.asarray(stats[:, cv2.CC_STAT_AREA], np.int32)


#: Runs take some 60 bytes each. A label map with more of them than this share of its pixels is
#: noise, and each of its masks is cleaned by itself, in 5 bytes a pixel.
_MOST_RUNS = 1 / 16

_NO_RUNS = np.empty(0, np.int64)


class LabelMasks:
    """Masks of a label map's labels, made one at a time when they are asked for.

    Islands and holes of all labels are found at once, see `RunComponents`.

    Args:
        runs: the runs of the label map.
        sums: (N,) float64, the confidence of each run's pixels, summed.
        min_island_px: connected parts (8-connectivity) of fewer pixels are dropped.
        min_hole_px: holes (4-connectivity) of fewer pixels are filled. What touches the border
            is no hole.
        numbers: (labels + 1,) the number of the mask that each label is in, -1 for none; the last
            one that of -1. By default each label has a mask of its own number.
    """

    def __init__(
        self,
        runs: LabelRuns,
        sums: npt.NDArray[np.float64],
        min_island_px: int = 0,
        min_hole_px: int = 0,
        numbers: npt.NDArray[Any] | None = None,
    ) -> None:
        if numbers is not None:
            runs, first = runs.renumbered(numbers)
            sums = np.add.reduceat(sums, first)
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
        """Return the mask of a label as runs; without any if the label has no pixel.

        Args:
            label: index of the label.
        """
        return self._runs.mask(self._indices(label))

    def mask(self, label: int) -> BoolMask:
        """Draw the mask of a label: (H, W) bool, which takes memory only where the label is.

        Args:
            label: index of the label.
        """
        return self.runs(label).to_mask()

    def mean_confidence(self, label: int) -> float:
        """Compute the mean confidence in the mask of a label, in float64; 0 for an empty mask.

        Args:
            label: index of the label.
        """
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
            plain = self._runs.mask(runs).to_mask()
            mask = fill_holes(drop_islands(plain, self._least_px[0]), self._least_px[1])
            # Whole runs are dropped and filled.
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


def _by_label(labels: npt.NDArray[Any]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield each label of some runs (N,), ascending, and the indices of its runs, ascending."""
    order = np.argsort(labels, kind="stable")
    changes = np.flatnonzero(np.diff(labels[order])) + 1
    for some in np.split(order, changes):
        if len(some):
            yield int(labels[some[0]]), some
