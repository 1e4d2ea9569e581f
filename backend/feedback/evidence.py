"""What an annotation says of the labels of an image, and what it does not.

Label Studio keeps where a region came from: its id is that of the prediction's region, and its
``origin`` says whether the annotator has changed it.

- **Drawn**: a region that the annotator drew, changed or relabelled. Its pixels have its label.
- **Kept**: a region that stands as a prediction showed it: the prediction has a region of its id
  and label with the same pixels or, where that prediction is not at hand, the region's origin is
  ``prediction``. The annotator agreed with it, or did not look. Where something drawn with the same
  label covers it, it is drawn.
- **Removed**: pixels that the prediction showed as a label and that the annotation does not give to
  it any more. Where no region of the prediction is left, the annotator began from
  nothing, and what is gone was not judged by itself: then only those pixels are removed
  that something drawn covers now.
- A **rectangle** bounds its thing and does not fill it. So it is no mask, neither drawn nor kept,
  and one that is gone removes nothing. Pixels inside a rectangle are not removed from its label.

Of all other pixels it says nothing here; what they may teach is decided where scores are fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final

import numpy as np
import numpy.typing as npt

from backend.label_studio.region_reader import Area, area_box, area_mask, draw_area
from clearclip_core import BoolMask

#: The kind of regions that bound what they show.
_RECTANGLE: Final = "rectanglelabels"

#: What Label Studio writes as a region's `origin` while it stands as the prediction showed it.
_UNTOUCHED: Final = "prediction"

#: Name of a label -> its areas on one image.
AreasByLabel = Mapping[str, Sequence[Area]]


class LazyMasks(Mapping[str, BoolMask]):
    """Masks of labels that are drawn on each access: large masks take memory.

    Args:
        draw: name of a label -> a function that draws its mask, (H, W) bool.

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

    @classmethod
    def of_areas(cls, areas: AreasByLabel, size_hw: tuple[int, int]) -> LazyMasks:
        """Make the masks of areas on an image of that height and width in px.

        >>> left = Area("rectanglelabels", "box", "img", None, (1, 4),
        ...             {"x": 0, "y": 0, "width": 50, "height": 100})
        >>> LazyMasks.of_areas({"car": [left]}, (1, 4))["car"]
        array([[ True,  True, False, False]])
        """
        return cls({label: partial(draw_areas, its, size_hw) for label, its in areas.items()})


@dataclass(frozen=True, eq=False)
class ImageEvidence:
    """What an annotation says of one image.

    Attributes:
        masks: name of a label -> (H, W) bool, its pixels, drawn and kept.
        kept: name of a label -> (H, W) bool, the kept part of its mask.
        removed: name of a label -> (H, W) bool, the pixels that were removed from it.
    """

    masks: Mapping[str, BoolMask]
    kept: Mapping[str, BoolMask] = field(default_factory=dict)
    removed: Mapping[str, BoolMask] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing of any label."""
        return not self.masks and not self.removed


def find_evidence(
    predicted: AreasByLabel | None, final: AreasByLabel, size_hw: tuple[int, int]
) -> ImageEvidence:
    """Find what an annotation says of an image.

    Args:
        predicted: the areas of the prediction; None where it is not at hand.
        final: the areas of the annotation.
    """
    before = predicted or {}
    shaped = without_rectangles(final)
    first = {label: _first_by_id(before.get(label, ())) for label in shaped}
    kept = {
        label: [area for area in areas if _is_kept(area, first[label])]
        for label, areas in shaped.items()
    }
    drawn = {label: _except(areas, kept[label]) for label, areas in shaped.items()}
    kept_masks = {
        label: partial(_first_alone, areas, drawn[label], size_hw)
        for label, areas in kept.items()
        if areas
    }
    began_anew = not _ids(before) & _ids(final)
    shown = without_rectangles(before)
    covers = _Covers(drawn, size_hw) if began_anew else None
    removed = {}
    for label, areas in shown.items():
        if _is_left_whole(areas, final.get(label, ())) or (covers and not covers.has_others(label)):
            continue
        removed[label] = partial(_removed, label, areas, final.get(label, ()), covers, size_hw)
    return ImageEvidence(
        LazyMasks.of_areas(shaped, size_hw), LazyMasks(kept_masks), LazyMasks(removed)
    )


def draw_areas(areas: Iterable[Area], size_hw: tuple[int, int]) -> BoolMask:
    """Draw the union of areas as a mask (H, W) bool."""
    mask = np.zeros(size_hw, dtype=np.bool_)
    for area in areas:
        draw_area(area, mask)
    return mask


def has_same_pixels(one: Area, other: Area) -> bool:
    """Return whether two areas of one image cover the same pixels."""
    if one.kind == other.kind and one.size_hw == other.size_hw:
        keys = (one.value.keys() | other.value.keys()) - {one.kind}
        if all(one.value.get(key) == other.value.get(key) for key in keys):
            return True  # most often, and then nothing is drawn
    boxes = zip(area_box(one), area_box(other), strict=True)
    box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in boxes)
    return np.array_equal(area_mask(one)[box], area_mask(other)[box])


def without_rectangles(areas: AreasByLabel) -> dict[str, list[Area]]:
    """Return the areas of labels without rectangles; labels that have only these are left out."""
    shaped = {
        label: [area for area in its if area.kind != _RECTANGLE] for label, its in areas.items()
    }
    return {label: its for label, its in shaped.items() if its}


def _is_kept(area: Area, before: Mapping[str, Area]) -> bool:
    """Whether an area stands as a prediction showed it, by the areas of its label `before`."""
    origin = before.get(area.id)
    if origin is None:
        return area.origin == _UNTOUCHED
    return has_same_pixels(origin, area)


def _is_left_whole(shown: Sequence[Area], final: Sequence[Area]) -> bool:
    """Whether all areas that were shown as a label still stand, so that nothing is removed."""
    by_id = {area.id: area for area in final if area.id}
    return all(area.id in by_id and has_same_pixels(area, by_id[area.id]) for area in shown)


def _first_by_id(areas: Sequence[Area]) -> dict[str, Area]:
    """Return id -> the first area of that id, for areas that have one."""
    return {area.id: area for area in reversed(areas) if area.id}


def _except(areas: Sequence[Area], others: Sequence[Area]) -> list[Area]:
    left_out = set(map(id, others))
    return [area for area in areas if id(area) not in left_out]


def _ids(areas: AreasByLabel) -> set[str]:
    return {area.id for its in areas.values() for area in its if area.id}


def _first_alone(
    areas: Sequence[Area], others: Sequence[Area], size_hw: tuple[int, int]
) -> BoolMask:
    """Draw the pixels of areas that none of the others covers."""
    return draw_areas(areas, size_hw) & ~draw_areas(others, size_hw)


class _Covers:
    """Which pixels are drawn with another label than a given one.

    All labels are drawn once, into a map that is kept: it takes two bytes a pixel.
    """

    _SEVERAL: Final = np.iinfo(np.uint16).max

    def __init__(self, drawn: AreasByLabel, size_hw: tuple[int, int]) -> None:
        self._drawn = {label: areas for label, areas in drawn.items() if areas}
        self._size_hw = size_hw

    def has_others(self, label: str) -> bool:
        return bool(self._drawn.keys() - {label})

    def of_others(self, label: str) -> BoolMask:
        """Return the pixels (H, W) bool that are drawn with another label."""
        own = 1 + list(self._drawn).index(label) if label in self._drawn else 0
        is_other: BoolMask = (self._owners != 0) & (self._owners != own)
        return is_other

    @cached_property
    def _owners(self) -> npt.NDArray[np.uint16]:
        """(H, W) of each pixel: 0, or 1 + the index of its label, or `_SEVERAL`."""
        owners = np.zeros(self._size_hw, np.uint16)
        for owner, areas in enumerate(self._drawn.values(), 1):
            mask = draw_areas(areas, self._size_hw)
            owners[mask & (owners != 0)] = self._SEVERAL
            owners[mask & (owners == 0)] = owner
        return owners


def _removed(
    label: str,
    shown: Sequence[Area],
    final: Sequence[Area],
    covers: _Covers | None,
    size_hw: tuple[int, int],
) -> BoolMask:
    """Draw the pixels that were shown as a label and are not given to it any more.

    Args:
        size_hw: height and width of the image in px.
    """
    gone = _first_alone(shown, final, size_hw)
    return gone if covers is None else gone & covers.of_others(label)
