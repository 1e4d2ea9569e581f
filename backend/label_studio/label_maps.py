"""Draw what an annotation says of an image as one label map, with the regions that it is of.

Where regions overlap, the later one is on top, as the editor shows them. A rectangle bounds its
thing and does not fill it: pixels that only rectangles cover are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backend.label_studio.drawing_steps import check_image_size, check_masks
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.region_reader import (
    Area,
    area_box,
    area_mask,
    disagreement,
    read_areas,
    written_labels,
)
from clearclip_core import Label
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth

_RECTANGLE: Final = "rectanglelabels"


@dataclass(frozen=True, eq=False)
class AnnotationMap:
    """What an annotation says of each pixel of an image.

    Attributes:
        truth: (H, W) uint8 label indices, 254 for pixels without a label, 255 for pixels that are
            not counted.
        regions: (H, W) unsigned integers, of each pixel with a label the number of its region, from
            1 in the order of the annotation, a region of several labels once for each; 0 for all
            other pixels.
    """

    truth: Truth
    regions: npt.NDArray[np.unsignedinteger[Any]]


def draw_label_map(
    result: Sequence[Any],
    config: LabelConfig,
    image: str,
    labels: Sequence[Label],
    item_index: int | None = None,
) -> Truth | None:
    """Draw the regions of an annotation on one image as a label map.

    Args:
        result: the regions of the annotation, as they came.
        config: label config of the project.
        image: name of the image tag.
        labels: the labels, whose indices are the values of the map.
        item_index: index in a list of images; None where the tag shows no list.

    Returns:
        (H, W) uint8 label indices, 254 for pixels without a label, 255 for pixels that are not
        counted. None where no region of a label is on the image: its size is not known.

    Raises:
        BadRequest: a region cannot be read, or the regions take too many steps to draw.
        ValueError: a region's geometry is broken, the regions disagree on the image's size, or
            there are more than 254 labels.
    """
    made = draw_annotation(result, config, image, labels, item_index)
    return None if made is None else made.truth


def draw_annotation(
    result: Sequence[Any],
    config: LabelConfig,
    image: str,
    labels: Sequence[Label],
    item_index: int | None = None,
) -> AnnotationMap | None:
    """Draw the regions of an annotation on one image, and keep apart which is which.

    Arguments and errors are those of `draw_label_map`; None where that returns None.
    """
    indices = _label_indices(config, labels)
    names = {control for control, _ in indices}
    found = [
        (index, area)
        for area in read_areas(result, names)
        if area.image == image and (area.item_index or 0) == (item_index or 0)
        for index in _indices_of(area, indices)
    ]
    sizes = {area.size_hw for _, area in found}
    if len(sizes) > 1:
        raise ValueError(disagreement(sizes))
    if not sizes:
        return None
    if len(labels) > NOTHING:
        raise ValueError(f"Expected at most {NOTHING} labels on an image, but got {len(labels)}.")
    size_hw = sizes.pop()
    check_image_size(size_hw)
    check_masks(size_hw, [area for _, area in found])
    truth = np.full(size_hw, NOTHING, np.uint8)
    regions = np.zeros(size_hw, np.min_scalar_type(len(found)))
    for _, area in found:
        if area.kind == _RECTANGLE:
            box = area_box(area)
            truth[box][area_mask(area)[box]] = IGNORE
    for number, (index, area) in enumerate(found, 1):
        if area.kind != _RECTANGLE:
            box = area_box(area)
            mask = area_mask(area)[box]
            truth[box][mask], regions[box][mask] = index, number
    return AnnotationMap(truth, regions)


def _label_indices(config: LabelConfig, labels: Sequence[Label]) -> dict[tuple[str, str], int]:
    """Return name of a control and text of its label -> index; an alias wins over a value."""
    index = {label.name: number for number, label in enumerate(labels)}
    own = [
        (control.name, label)
        for control in (*config.controls, *config.boxes)
        for label in control.labels
        if label.name in index
    ]
    by_value = {(control, label.name): index[label.name] for control, label in own}
    return by_value | {(control, label.written): index[label.name] for control, label in own}


def _indices_of(area: Area, indices: dict[tuple[str, str], int]) -> list[int]:
    texts = dict.fromkeys(written_labels(area))
    return [indices[area.control, text] for text in texts if (area.control, text) in indices]
