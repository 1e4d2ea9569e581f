"""What an annotation says of the labels of an image, and what it does not.

Label Studio keeps where a region came from: its id is that of the prediction's region, and its
``origin`` says whether the annotator has changed it. Where regions overlap, a pixel is of the one
that was drawn later.

- **Drawn**: a region that the annotator drew, changed or relabelled. Its pixels have its label.
- **Kept**: a region that stands as a prediction showed it: the prediction has a region of its id
  and label with the same pixels or, where that prediction is not at hand, the region's origin is
  ``prediction``. The annotator agreed with it, or did not look.
  A region that a review has repaired is kept where both have pixels: there nobody has drawn.
- **Removed**: pixels that the prediction showed as a label and that the annotation does not give to
  it any more. Where no region of the prediction is left, the annotator began from
  nothing, and what is gone was not judged by itself: then only those pixels are removed
  that something drawn covers now.
- A **rectangle** bounds its thing and does not fill it. So it is no mask, neither drawn nor kept,
  and one that is gone removes nothing. Pixels inside a rectangle are not removed from its label.

Of all other pixels it says nothing here; what they may teach is decided where scores are fitted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from backend.annotations.label_map import LabelMap, draw_label_map
from backend.annotations.regions import LabelledRegion, by_label, draw_areas
from backend.label_studio.region_reader import Area, area_box, area_mask
from clearclip_core import BoolMask


class LazyMasks(Mapping[str, BoolMask]):
    """Masks of labels, (H, W) bool, that are drawn on each access: large masks take memory.

    >>> masks = LazyMasks({"car": lambda: np.ones((1, 2), np.bool_)})
    >>> list(masks), masks["car"]
    (['car'], array([[ True,  True]]))
    """

    def __init__(self, draw: Mapping[str, Callable[[], BoolMask]]) -> None:
        self._draw = draw

    def __getitem__(self, label: str) -> BoolMask:
        return self._draw[label]()

    def __contains__(self, label: object) -> bool:
        return label in self._draw  # Mapping's own would draw the mask

    def __iter__(self) -> Iterator[str]:
        return iter(self._draw)

    def __len__(self) -> int:
        return len(self._draw)


@dataclass(frozen=True, eq=False)
class ImageEvidence:
    """What an annotation says of one image."""

    masks: Mapping[str, BoolMask]  # name of a label -> (H, W) bool, its pixels, drawn and kept
    kept: Mapping[str, BoolMask] = field(default_factory=dict)  # label -> (H, W) bool
    removed: Mapping[str, BoolMask] = field(default_factory=dict)  # label -> (H, W) bool

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing of any label."""
        return not self.masks and not self.removed


def find_evidence(
    predicted: Sequence[LabelledRegion], final: Sequence[LabelledRegion], size_hw: tuple[int, int]
) -> ImageEvidence:
    """Find what an annotation says of an image, by its regions and the prediction's, if at hand."""
    before = by_label(predicted)
    known = {label: _by_id(areas) for label, areas in before.items()}
    painted = _Painted([each for each in final if not each.is_rectangle], known, size_hw)
    removed = _find_removed(predicted, final, painted)

    return ImageEvidence(
        LazyMasks({each: partial(painted.mask, each) for each in painted.labels}),
        LazyMasks({each: partial(painted.mask, each, kept=True) for each in painted.kept_labels}),
        LazyMasks(removed),
    )


def has_same_pixels(one: Area, other: Area) -> bool:
    """Return whether two areas of one image cover the same pixels."""
    if one.kind == other.kind and one.size_hw == other.size_hw:
        keys = (one.value.keys() | other.value.keys()) - {one.kind}
        if all(one.value.get(key) == other.value.get(key) for key in keys):
            return True  # most often, and then nothing is drawn
    boxes = zip(area_box(one), area_box(other), strict=True)
    box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in boxes)
    return np.array_equal(area_mask(one)[box], area_mask(other)[box])


class _Painted:
    """The regions of an annotation that are no rectangles, drawn once, when they are asked for."""

    def __init__(
        self,
        regions: Sequence[LabelledRegion],
        known: Mapping[str, Mapping[str, Area]],  # label -> id -> area of the prediction
        size_hw: tuple[int, int],
    ) -> None:
        self.size_hw = size_hw
        self._regions = regions
        self._repaired = [_repaired_from(each.area, known.get(each.label, {})) for each in regions]
        self._kept = [_is_kept(each.area, known.get(each.label, {})) for each in regions]
        pairs = list(zip(regions, self._kept, strict=True))
        self.labels = dict.fromkeys(each.label for each in regions)
        repaired = dict.fromkeys(
            each.label for each, was in zip(regions, self._repaired, strict=True) if was is not None
        )
        self.kept_labels = dict.fromkeys(each.label for each, kept in pairs if kept) | repaired
        self._drawn_labels = {each.label for each, kept in pairs if not kept}

    @cached_property
    def _map(self) -> LabelMap:
        return draw_label_map(self._regions, self.size_hw)

    def mask(self, label: str, *, kept: bool = False) -> BoolMask:
        """Return the pixels (H, W) bool of a label, or only those that are kept."""
        mask = self._map.mask(
            number
            for number, (each, is_kept) in enumerate(zip(self._regions, self._kept, strict=True), 1)
            if each.label == label and (is_kept or not kept)
        )
        for number, was in enumerate(self._repaired, 1) if kept else ():
            if was is not None and self._regions[number - 1].label == label:
                mask |= self._map.mask([number]) & area_mask(was)
        return mask

    def drawn_beside(self, label: str) -> bool:
        return bool(self._drawn_labels - {label})

    def drawn(self) -> BoolMask:
        """Return the pixels (H, W) bool that are drawn, with whatever label."""
        return self._map.mask(number for number, kept in enumerate(self._kept, 1) if not kept)


def _is_kept(area: Area, before: Mapping[str, Area]) -> bool:
    """Whether an area stands as a prediction showed it, by the areas of its label `before`."""
    origin = before.get(area.id)
    if origin is None:  # of what a review has changed, nobody can tell where any more
        return area.origin == "prediction" or _is_repaired(area)
    return has_same_pixels(origin, area)


def _repaired_from(area: Area, before: Mapping[str, Area]) -> Area | None:
    """Return the predicted area of its label that a review has repaired to an area, if it has."""
    origin = before.get(area.id)
    return origin if origin and _is_repaired(area) and origin.size_hw == area.size_hw else None


def _is_repaired(area: Area) -> bool:
    return area.source == "review" and area.origin == "prediction-changed"


def _is_left_whole(shown: Sequence[Area], final: Sequence[Area]) -> bool:
    """Whether all areas that were shown as a label still stand, so that nothing is removed."""
    left = {area.id: area for area in final if area.id}
    return all(area.id in left and has_same_pixels(area, left[area.id]) for area in shown)


def _by_id(areas: Sequence[Area]) -> dict[str, Area]:
    """Return id -> the first area of that id, for areas that have one."""
    return {area.id: area for area in reversed(areas) if area.id}


def _ids(regions: Sequence[LabelledRegion]) -> set[str]:
    return {each.id for each in regions if each.id}


def _removed(shown: Sequence[Area], final: Sequence[Area], painted: _Painted | None) -> BoolMask:
    """Draw the pixels that were shown as a label and are not given to it any more."""
    size_hw = shown[0].size_hw
    gone = draw_areas(shown, size_hw) & ~draw_areas(final, size_hw)
    return gone if painted is None else gone & painted.drawn()


def _find_removed(
    predicted: Sequence[LabelledRegion], final: Sequence[LabelledRegion], painted: _Painted
) -> dict[str, Callable[[], BoolMask]]:
    """Return label -> what draws its removed pixels, for the labels that have some."""
    began_anew = not _ids(predicted) & _ids(final)
    after = by_label(final)
    was_shown = by_label(each for each in predicted if not each.is_rectangle)

    removed: dict[str, Callable[[], BoolMask]] = {}
    for label, shown in was_shown.items():
        left = after.get(label, ())
        if _is_left_whole(shown, left):
            continue
        if not began_anew:
            removed[label] = partial(_removed, shown, left, None)
        elif painted.drawn_beside(label):
            removed[label] = partial(_removed, shown, left, painted)
    return removed
