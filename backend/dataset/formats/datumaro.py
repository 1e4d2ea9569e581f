"""Read Datumaro's own format: JSON files in ``annotations`` with masks, polygons and boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from backend.annotations.regions import LabelledRegion
from backend.dataset.formats.coco import draw_runs, read_runs
from backend.dataset.formats.layout import Layout, layout_of_files
from backend.dataset.formats.shapes import box_ring, fill_rings, points_of, told_as_broken
from backend.dataset.mask_source import Limits, MaskSource, read_bytes
from backend.errors import DatasetError
from clearclip_core import BoolMask

_LIMITS: Final = Limits(max_file_mb=1 << 10)  # of a file with the masks of all pictures

_DRAWN: Final = ("mask", "polygon", "bbox")


class _Runs(msgspec.Struct):
    counts: str


class _Annotation(msgspec.Struct):
    """A shape; those of one `group`, if it is not 0, and class are parts of one thing."""

    type: str
    label_id: int | None = None
    group: int = 0
    rle: _Runs | None = None  # of a mask
    points: list[float] = []  # of a polygon
    bbox: list[float] = []  # left, top, width and height in px


class _Image(msgspec.Struct):
    path: str = ""


class _Item(msgspec.Struct):
    id: str
    annotations: list[_Annotation] = []
    image: _Image | None = None


class _Label(msgspec.Struct):
    name: str


class _Labels(msgspec.Struct):
    labels: list[_Label]


class _Categories(msgspec.Struct):
    label: _Labels


class _File(msgspec.Struct):
    categories: _Categories
    items: list[_Item]


def _is_one(head: bytes) -> bool:
    return b'"dm_format_version"' in head or (b'"label_group"' in head and b'"infos"' in head)


def _read(root: Path, files: Sequence[Path], limits: Limits) -> Iterator[MaskSource]:
    for path in files:
        try:
            found = msgspec.json.decode(read_bytes(path, _LIMITS), type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DatasetError(f"{path} is no file of Datumaro: {error!s:.100}.") from None

        names = [each.name for each in found.categories.label.labels]
        for item in found.items:
            name = (item.image.path if item.image else "") or item.id
            read_regions = partial(_regions, item.annotations, names, name)
            yield MaskSource(name, name, read_regions, item.id, has_objects=True)


def _regions(
    annotations: Sequence[_Annotation],
    names: Sequence[str],
    where: str,
    size_hw: tuple[int, int],
) -> Iterator[LabelledRegion]:
    things: dict[tuple[int, int], list[_Annotation]] = {}
    for number, each in enumerate(annotations, 1):
        if each.type not in _DRAWN:
            continue
        if each.label_id is None or not 0 <= each.label_id < len(names):
            raise DatasetError(f"{where}: the annotation {number} has no class of the file.")
        things.setdefault((each.label_id, each.group or -number), []).append(each)

    for number, ((label, _), parts) in enumerate(things.items(), 1):
        id_ = f"the object {number}"
        draw = partial(_draw, parts, f"{where}: {id_}", size_hw)
        yield LabelledRegion(names[label], draw, id=id_)


def _draw(parts: Sequence[_Annotation], where: str, size_hw: tuple[int, int]) -> BoolMask:
    mask = np.zeros(size_hw, np.bool_)
    with told_as_broken(where):
        for each in parts:
            mask |= _draw_part(each, size_hw)
    return mask


def _draw_part(part: _Annotation, size_hw: tuple[int, int]) -> BoolMask:
    if part.type == "mask":
        if part.rle is None:
            raise ValueError("its mask has no runs")
        return draw_runs(read_runs(part.rle.counts), size_hw)
    if part.type == "polygon":
        return fill_rings([points_of(part.points)], size_hw)
    left, top, width, height = part.bbox
    return fill_rings([box_ring(left, top, left + width, top + height)], size_hw)


DATUMARO: Final[Layout] = layout_of_files("Datumaro", ".json", _is_one, _read, ("images",))
