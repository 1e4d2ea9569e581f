"""The regions of annotations and predictions, with the names of their labels; masks on demand."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, get_args

import msgspec
import numpy as np

from backend.label_studio.label_config import LabelConfig
from backend.label_studio.region_reader import (
    NO_AREA,
    RECTANGLE,
    Area,
    area_mask,
    draw_area,
    read_areas,
)
from clearclip_core import BoolMask

#: Where a region came from, as Label Studio has it: drawn by a person, as it was predicted, or
#: changed by a person; "majority" where more than half of several annotators agree.
Origin = Literal["manual", "prediction", "prediction-changed", "majority"]

_ORIGINS: Final = get_args(Origin)

#: Name of an image tag, and index in its list of images; 0 where it shows no list.
Place = tuple[str, int]


class Provenance(msgspec.Struct, frozen=True):
    """Where a region came from; ids are None, and the version is empty, where nobody knows."""

    origin: Origin = "manual"
    model_version: str = ""
    annotation: int | None = None
    annotator: int | None = None

    def of_region(self, area: Area) -> "Provenance":
        """Return where one region came from; this value says it of the whole annotation."""
        origin: Origin = self.origin
        if self.annotation is not None:
            origin = next((each for each in _ORIGINS if each == area.origin), "manual")
        from_model = origin in ("prediction", "prediction-changed")
        version = self.model_version if from_model else ""
        return Provenance(origin, version, self.annotation, self.annotator)


_DRAWN: Final = Provenance()


@dataclass(frozen=True)
class LabelledRegion:
    """A part of an image that has a label."""

    label: str
    #: Draws or decodes its mask, (H, W) bool of the image's size; may raise a `BackendError`.
    read_mask: Callable[[], BoolMask] = field(repr=False, compare=False)
    score: float | None = None  # probability in [0, 1]; None where a person has drawn it
    provenance: Provenance = _DRAWN
    id: str = ""  # of the region in Label Studio, or what it is called in its file
    parent: str = ""  # id of the region that it lies below in Label Studio's list
    area: Area = NO_AREA  # the region as Label Studio has it; `NO_AREA` where it is from elsewhere

    @classmethod
    def of(cls, label: str, mask: BoolMask, **more: Any) -> "LabelledRegion":
        """Make a region of a mask that is there already, (H, W) bool."""
        return cls(label, lambda: mask, **more)

    def read_thinned_mask(self, step: int) -> BoolMask:
        """Return every `step`-th row and column of its mask, from the first, for small pictures."""
        if self.area is NO_AREA:
            return np.ascontiguousarray(self.read_mask()[::step, ::step])
        return area_mask(self.area, step)

    @property
    def is_rectangle(self) -> bool:
        """Whether it bounds its thing and does not say which pixels are of it."""
        return self.area.kind == RECTANGLE


def read_regions(
    result: Sequence[Any],
    config: LabelConfig,
    names_of: Callable[[Area], Iterable[str]] | None = None,
    whole: Provenance = _DRAWN,
) -> dict[Place, list[LabelledRegion]]:
    """Read the regions of labels in the result of an annotation or a prediction, image by image.

    A region has the labels that `names_of` returns, and is there once for each; by default those of
    `LabelConfig.label_of`, and none where a prompt has left it behind. `whole` says where the
    result came from.

    Raises:
        BadRequest: a region is broken.
    """
    found: dict[Place, list[LabelledRegion]] = {}
    for area in read_areas(result, config.control_names, config.prompt_tools):
        provenance = whole.of_region(area)
        for name in names_of(area) if names_of else _names(area, config):
            mask = partial(area_mask, area)
            region = LabelledRegion(name, mask, area.score, provenance, area.id, area.parent, area)
            found.setdefault((area.image, area.item_index or 0), []).append(region)
    return found


def _names(area: Area, config: LabelConfig) -> Iterator[str]:
    names = dict.fromkeys(config.label_of(area.control, text) for text in area.labels)
    return (name for name in names if name)


def by_label(regions: Iterable[LabelledRegion]) -> dict[str, list[Area]]:
    """Return name of a label -> the areas of its regions, in their order."""
    found: dict[str, list[Area]] = {}
    for region in regions:
        found.setdefault(region.label, []).append(region.area)
    return found


def draw_areas(areas: Iterable[Area], size_hw: tuple[int, int]) -> BoolMask:
    """Draw the union of areas as a mask (H, W) bool."""
    mask = np.zeros(size_hw, dtype=np.bool_)
    for area in areas:
        draw_area(area, mask)
    return mask
