"""Draw the masks of a data set as the regions of a project's controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from PIL import Image

from backend.dataset.class_mapping import ClassMapping, Target
from backend.dataset.labelled_image import BoolMask, LabelledRegion
from backend.dataset.mask_source import check_size
from backend.dataset.task_matching import Matched
from backend.label_studio.image_loader import ImageShape
from backend.label_studio.label_config import ControlLabel
from backend.label_studio.region_writer import EvenConfidence, draw_regions
from clearclip_core import RunMask

#: Controls whose regions are whole masks: an editor freezes on many of them.
_MASKS: Final = ("brushlabels", "bitmasklabels")

#: How far a polygon may leave its mask's edge: less than those of predictions, which are no truth.
_TOLERANCE_PX: Final = 0.5


class RegionDrawer:
    """Draws the regions of one image.

    Args:
        mapping: where the regions of each class go.
        instances: draw each object as a brush or bitmask region of its own; by default all of a
            label are one region. Polygons and rectangles are one for each object in any case.
        as_stored: the masks fit the pixels as the file of the picture has them, and are turned as
            EXIF says.
    """

    def __init__(
        self, mapping: ClassMapping, *, instances: bool = False, as_stored: bool = False
    ) -> None:
        self._mapping = mapping
        self._instances = instances
        self._as_stored = as_stored

    def check(self, matched: Matched, shape: ImageShape) -> list[str]:
        """Read all masks of an image, and return their classes, those that are left out excepted.

        Raises:
            DatasetError: they cannot be read, have another size, or a mask is of another size.
        """
        names = []
        for region in self._regions(matched, shape):
            self._mask(region, matched, shape)
            if not self._mapping.leaves_out(region.label):
                names.append(region.label)
        return list(dict.fromkeys(names))

    def draw(self, matched: Matched, shape: ImageShape) -> Iterator[dict[str, Any]]:
        """Iterate over the entries of a prediction's result for one image.

        Raises:
            DatasetError: see `check`; or a class has no label.
        """
        place = matched.place
        owner = f"{place.task.id}/{matched.source.name}"
        for number, (target, mask, score) in enumerate(self._parts(matched, shape)):
            for region in draw_regions(
                RunMask.of(mask),
                EvenConfidence(score, (mask.shape[0], mask.shape[1])),
                target.control,
                _always(target),
                place.tag,
                mean_confidence=score,
                item_index=place.item_index,
                tolerance_px=_TOLERANCE_PX,
                with_holes=True,
                owner=f"{owner}/{number}",
            ):
                yield from region.to_json()

    def _parts(
        self, matched: Matched, shape: ImageShape
    ) -> Iterator[tuple[Target, BoolMask, float]]:
        """Iterate over the masks to draw; those of one label are united where one region is."""
        united: dict[Target, tuple[BoolMask, list[float]]] = {}
        for region in self._regions(matched, shape):
            if self._mapping.leaves_out(region.label):
                continue
            target = self._mapping.target(region.label, matched.place.tag)
            mask = self._mask(region, matched, shape)
            score = 1.0 if region.score is None else region.score
            if self._instances or target.control.kind not in _MASKS:
                yield target, mask, score
                continue
            before, scores = united.get(target, (None, []))
            united[target] = (mask if before is None else before | mask, [*scores, score])
        for target, (mask, scores) in united.items():
            yield target, mask, sum(scores) / len(scores)

    def _regions(self, matched: Matched, shape: ImageShape) -> Sequence[LabelledRegion]:
        return matched.source.read_regions(self._size_hw(shape))

    def _size_hw(self, shape: ImageShape) -> tuple[int, int]:
        return shape.stored_hw if self._as_stored else shape.size_hw

    def _mask(self, region: LabelledRegion, matched: Matched, shape: ImageShape) -> BoolMask:
        mask = region.read_mask()
        check_size(matched.source.where, mask.shape, self._size_hw(shape))
        if not self._as_stored or shape.turn is None:
            return mask
        return np.asarray(Image.fromarray(mask.view(np.uint8)).transpose(shape.turn)).view(np.bool_)


def _always(target: Target) -> ControlLabel:
    """Return a label without its threshold, which is for the model's predictions."""
    return replace(target.label, threshold=0.0)
