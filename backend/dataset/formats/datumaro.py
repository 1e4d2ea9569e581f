"""Read Datumaro's own format: JSON files in ``annotations`` with masks, polygons and boxes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from backend.annotations.regions import LabelledRegion
from backend.dataset.formats.coco import draw_runs, read_runs
from backend.dataset.formats.layout import Layout, layout_of_files
from backend.dataset.formats.shapes import (
    BROKEN,
    box_ring,
    fill_rings,
    points_of,
    told_as_broken,
)
from backend.dataset.mask_source import Limits, MaskSource, read_bytes
from backend.errors import DatasetError
from clearclip_core import BoolMask


def _is_one(head: bytes) -> bool:
    return b'"dm_format_version"' in head or (b'"label_group"' in head and b'"infos"' in head)


def _read(root: Path, files: Sequence[Path], limits: Limits) -> Iterator[MaskSource]:
    for path in files:
        try:
            found = json.loads(read_bytes(path, limits))
            names = [str(each["name"]) for each in found["categories"]["label"]["labels"]]
            items = [(str(each["id"]), each, each["annotations"]) for each in found["items"]]
        except (*BROKEN, RecursionError):
            raise DatasetError(f"{path} is no file of Datumaro, or lacks a field.") from None
        for id_, item, objects in items:
            name = str((item.get("image") or {}).get("path") or id_)
            read_regions = partial(_regions, objects, names, name)
            yield MaskSource(name, name, read_regions, id_, has_objects=True)


def _regions(
    objects: Sequence[Any], names: Sequence[str], where: str, size_hw: tuple[int, int]
) -> Iterator[LabelledRegion]:
    """Iterate over the objects; those of one group and class are parts of one thing."""
    things: dict[tuple[str, Any], list[Any]] = {}
    for number, each in enumerate(objects, 1):
        with told_as_broken(f"{where}: the annotation {number}"):
            if each["type"] in ("mask", "polygon", "bbox"):
                label, group = names[int(each["label_id"])], each.get("group") or f"#{number}"
                things.setdefault((label, group), []).append(each)
    for number, ((label, _), parts) in enumerate(things.items(), 1):
        id_ = f"the object {number}"
        yield LabelledRegion(label, partial(_draw, parts, f"{where}: {id_}", size_hw), id=id_)


def _draw(parts: Sequence[Mapping[str, Any]], where: str, size_hw: tuple[int, int]) -> BoolMask:
    mask = np.zeros(size_hw, np.bool_)
    with told_as_broken(where):
        for each in parts:
            mask |= _draw_part(each, size_hw)
    return mask


def _draw_part(part: Mapping[str, Any], size_hw: tuple[int, int]) -> BoolMask:
    if part["type"] == "mask":
        return draw_runs(read_runs(str(part["rle"]["counts"])), size_hw)
    if part["type"] == "polygon":
        return fill_rings([points_of(part["points"])], size_hw)
    left, top, width, height = map(float, part["bbox"])
    return fill_rings([box_ring(left, top, left + width, top + height)], size_hw)


DATUMARO: Final[Layout] = layout_of_files("Datumaro", ".json", _is_one, _read, ("images",))
