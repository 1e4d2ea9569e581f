"""Read the files of the VGG Image Annotator: a JSON file or project of all pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backend.annotations.regions import LabelledRegion
from backend.dataset.formats.layout import Layout, layout_of_files
from backend.dataset.formats.shapes import (
    BROKEN,
    box_ring,
    ellipse_ring,
    fill_rings,
    told_as_broken,
)
from backend.dataset.mask_source import Limits, MaskSource, read_bytes
from backend.errors import DatasetError
from clearclip_core import BoolMask

_LIMITS: Final = Limits(max_file_mb=1 << 8)  # of a file with the masks of all pictures

#: Attributes that say the class where a region has several, the first that is there.
_CLASSES: Final = ("class", "label", "category", "type", "name", "object")
_UNNAMED: Final = "object"


def _is_one(head: bytes) -> bool:
    return b'"shape_attributes"' in head or b'"_via_settings"' in head


def _read(root: Path, files: Sequence[Path], limits: Limits) -> Iterator[MaskSource]:
    for path in files:
        try:
            found = json.loads(read_bytes(path, _LIMITS))
            pictures = found.get("_via_img_metadata", found)
            rows = [
                (str(each["filename"]), _as_list(each["regions"])) for each in pictures.values()
            ]
        except (*BROKEN, RecursionError):
            raise DatasetError(f"{path} is no file of VIA, or lacks a field.") from None
        for name, regions in rows:
            read_regions = partial(_regions, regions, name)
            yield MaskSource(name.rpartition("/")[2], name, read_regions, has_objects=True)


def _as_list(regions: Any) -> list[Any]:
    """Return regions, which VIA 1 has by their numbers."""
    return list(regions.values()) if isinstance(regions, dict) else list(regions)


def _regions(
    regions: Sequence[Any], where: str, size_hw: tuple[int, int]
) -> Iterator[LabelledRegion]:
    for number, region in enumerate(regions, 1):
        id_ = f"the region {number}"
        with told_as_broken(f"{where}: {id_}"):
            label = _class_of(region["region_attributes"])
            draw = partial(_draw, region["shape_attributes"], f"{where}: {id_}", size_hw)
            yield LabelledRegion(label, draw, id=id_)


def _class_of(attributes: Mapping[str, Any]) -> str:
    """Return the class of a region: its only attribute, or that of `_CLASSES`."""
    key = next((key for key in _CLASSES if attributes.get(key)), next(iter(attributes), ""))
    value = attributes.get(key, _UNNAMED)
    if isinstance(value, dict):  # of boxes to tick
        value = next((name for name, is_on in value.items() if is_on), _UNNAMED)
    return str(value).strip() or _UNNAMED


def _draw(shape: Mapping[str, Any], where: str, size_hw: tuple[int, int]) -> BoolMask:
    with told_as_broken(where):
        return fill_rings([_ring(shape)], size_hw)


def _ring(shape: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    kind = shape["name"]
    if kind == "polygon":
        return np.stack([np.array(shape[f"all_points_{axis}"], np.float64) for axis in "xy"], 1)
    if kind == "rect":
        left, top = float(shape["x"]), float(shape["y"])
        return box_ring(left, top, left + float(shape["width"]), top + float(shape["height"]))
    if kind == "circle":
        radius = float(shape["r"])
        return ellipse_ring(float(shape["cx"]), float(shape["cy"]), radius, radius)
    if kind == "ellipse":
        x, y, radius_x, radius_y = (float(shape[key]) for key in ("cx", "cy", "rx", "ry"))
        return ellipse_ring(x, y, radius_x, radius_y, np.degrees(float(shape.get("theta", 0))))
    return np.zeros((0, 2))  # lines and points


VIA: Final[Layout] = layout_of_files("VGG Image Annotator (VIA)", ".json", _is_one, _read)
