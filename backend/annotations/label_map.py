"""The one label that each pixel of an image has, of regions that may overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from backend.annotations.regions import LabelledRegion
from clearclip_core import BoolMask
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth

#: Which region has a pixel that several cover; the first is the default, everywhere.
Overlap = Literal["later", "smallest", "label-order"]

LATER: Final[Overlap] = get_args(Overlap)[0]


@dataclass(frozen=True)
class MapRule:
    """Says which region each pixel belongs to.

    Of several regions that is the one that was drawn "later", the "smallest" one, or in
    "label-order" that of the first label. Regions that a rule does not tell apart follow the order
    of the labels; of one label, the later one wins.
    """

    overlap: Overlap = LATER
    #: By default pixels that only rectangles cover are not counted: a rectangle bounds its thing,
    #: and nobody has said which of its pixels are of it.
    fills_rectangles: bool = False
    labels: tuple[str, ...] = ()  # for the rules that need their order


DEFAULT_RULE: Final = MapRule()  # the rule of everything that says no other


@dataclass(frozen=True, eq=False)
class LabelMap:
    """The region that each pixel of an image belongs to."""

    #: (H, W) unsigned integers: the number of a region, from 1; 0 where no region is, and
    #: ``len(labels) + 1`` for pixels that are not counted.
    regions: npt.NDArray[np.unsignedinteger[Any]]
    labels: tuple[str, ...]
    covered_px: int = 0  # pixels of regions that belong to others, of other labels

    def values(
        self,
        values: Mapping[str, int],
        nothing: int,
        uncounted: int,
        dtype: npt.DTypeLike = np.uint8,
    ) -> npt.NDArray[Any]:
        """Return (H, W) a value for each pixel: that of its label, else that of nothing."""
        table = [nothing, *(values.get(label, nothing) for label in self.labels), uncounted]
        value_of = np.array(table, dtype)
        if self.regions.dtype == value_of.dtype == np.uint8:  # five times as fast
            return np.asarray(cv2.LUT(self.regions, np.resize(value_of, 1 << 8)))
        return value_of.take(self.regions)

    def truth(self, labels: Sequence[str]) -> Truth:
        """Return (H, W) uint8 label indices, 254 for none of these labels, 255 for not counted.

        Raises:
            ValueError: there are too many labels.
        """
        if len(labels) > NOTHING:
            raise ValueError(f"Expected at most {NOTHING} labels on an image, not {len(labels)}.")
        return self.values({name: index for index, name in enumerate(labels)}, NOTHING, IGNORE)

    def mask(self, numbers: Iterable[int]) -> BoolMask:
        """Return (H, W) bool the pixels of the regions of some numbers."""
        table = np.zeros(len(self.labels) + 2, np.bool_)
        table[[*numbers]] = True
        return table.take(self.regions)

    def mask_of(self, label: str) -> BoolMask:
        """Return (H, W) bool the pixels of a label."""
        return self.mask(n for n, each in enumerate(self.labels, 1) if each == label)


def draw_label_map(
    regions: Sequence[LabelledRegion],
    size_hw: tuple[int, int],
    rule: MapRule = DEFAULT_RULE,
    step: int = 1,
) -> LabelMap:
    """Draw regions on an image; they have numbers in their order.

    Args:
        regions: all of the image.
        size_hw: height and width of the image in px.
        rule: which region a pixel belongs to that several cover.
        step: every how many rows and columns are drawn, from the first, for small pictures.

    Returns:
        (⌈H / step⌉, ⌈W / step⌉) the map; its `covered_px` are of these pixels.

    Raises:
        BackendError: a region is broken, see `LabelledRegion.read_mask`.
    """
    count = len(regions)
    small_hw = -(-size_hw[0] // step), -(-size_hw[1] // step)
    numbers = np.zeros(small_hw, np.min_scalar_type(count + 1))
    labels = tuple(region.label for region in regions)
    index = {name: number for number, name in enumerate(dict.fromkeys(labels))}
    label_of = np.array([-1, *(index[label] for label in labels), -1])
    covered = 0
    ordered = _ordered(list(enumerate(regions, 1)), rule)  # the one that wins is drawn last
    for number, region in sorted(ordered, key=lambda each: not each[1].is_rectangle):
        mask = region.read_mask() if step == 1 else region.read_thinned_mask(step)
        left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
        mask = mask[top : top + height, left : left + width]
        part = numbers[top : top + height, left : left + width]
        is_counted = rule.fills_rectangles or not region.is_rectangle
        if np.logical_and(part, mask).any():
            is_other = (label_of >= 0) & (label_of != label_of[number])
            covered += int(np.bincount(part[mask], minlength=count + 2)[is_other].sum())
        np.copyto(part, number if is_counted else count + 1, where=mask)
    return LabelMap(numbers, labels, covered)


_Numbered = tuple[int, LabelledRegion]


def _ordered(regions: list[_Numbered], rule: MapRule) -> list[_Numbered]:
    if rule.overlap == "later":
        return regions
    rank = {name: number for number, name in enumerate(rule.labels)}
    ordered = sorted(regions, key=lambda each: -rank.get(each[1].label, len(rank)))
    if rule.overlap == "smallest":
        ordered.sort(key=lambda each: -int(np.count_nonzero(each[1].read_mask())))
    return ordered


def vote(maps: Sequence[LabelMap], labels: Sequence[str]) -> LabelMap:
    """Give each pixel the label that more than half of several annotators have given it.

    Pixels without such an agreement are not counted. `labels` number the result's regions.
    """
    index = {name: number for number, name in enumerate(labels, 1)}
    uncounted = len(labels) + 1
    dtype = np.min_scalar_type(uncounted)
    leader = np.full(maps[0].regions.shape, uncounted, dtype)
    tables = ([0, *(index.get(label, 0) for label in each.labels), uncounted] for each in maps)
    given = [
        np.array(table, dtype).take(each.regions) for table, each in zip(tables, maps, strict=True)
    ]
    for value in np.unique(given).tolist():
        votes = np.sum([each == value for each in given], axis=0, dtype=np.uint16)
        leader[2 * votes > len(maps)] = value
    return LabelMap(leader, tuple(labels))
