"""Read COCO's panoptic format: a JSON file, and a folder of its name with PNGs.

The colour of a pixel is the id of its segment, red + 256 green + 256² blue; segments of one picture
do not overlap (https://cocodataset.org/#format-data).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from backend.annotations.regions import LabelledRegion
from backend.dataset.formats.label_map import read_class_map
from backend.dataset.formats.layout import FoundMasks, Layout, SetFolder
from backend.dataset.mask_source import Limits, MaskSource, check_mask_size, read_bytes
from backend.errors import DatasetError

_FILE: Final = re.compile(r"(?:.*/)?(?!(?:instances|stuff)_)[^/]*\.json")
_LIMITS: Final = Limits(max_file_mb=1 << 10)


class _Segment(msgspec.Struct):
    id: int
    category_id: int


class _Annotation(msgspec.Struct):
    file_name: str
    segments_info: list[_Segment]
    image_id: int | str = ""


class _Category(msgspec.Struct):
    id: int
    name: str


class _Image(msgspec.Struct):
    id: int | str
    file_name: str


class _File(msgspec.Struct):
    annotations: list[_Annotation]
    categories: list[_Category]
    images: list[_Image] = []


def _find(folder: SetFolder) -> FoundMasks | None:
    pairs: list[tuple[Path, Path]] = []
    for match in folder.matches(_FILE):
        path = folder.place(match[0])
        maps = path.with_suffix("")
        if maps.is_dir() and next(maps.glob("*.png"), None):
            pairs.append((path, maps))
    if not pairs or folder.matches(re.compile(r"(?:.*/)?instances_[^/]*\.json")):
        return None
    return FoundMasks("COCO, panoptic", lambda limits, _: _read(pairs, limits), ("images",))


def _read(pairs: Sequence[tuple[Path, Path]], limits: Limits) -> Iterator[MaskSource]:
    for path, maps in pairs:
        try:
            found = msgspec.json.decode(read_bytes(path, _LIMITS), type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DatasetError(f"{path} is no panoptic file of COCO: {error!s:.100}.") from None
        classes = {each.id: each.name for each in found.categories}
        images = {each.id: each.file_name for each in found.images}
        for each in found.annotations:
            name = images.get(each.image_id) or each.file_name
            read_regions = partial(_regions, maps, each, classes, limits)
            yield MaskSource(name, each.file_name, read_regions, each.file_name, has_objects=True)


def _regions(
    maps: Path,
    annotation: _Annotation,
    classes: Mapping[int, str],
    limits: Limits,
    size_hw: tuple[int, int],
) -> Iterator[LabelledRegion]:
    where = annotation.file_name
    content = read_bytes(_place(maps, where), limits)
    rgb = read_class_map(content, where, limits).values
    check_mask_size(where, rgb.shape[:2], size_hw)
    if rgb.ndim != 3:
        raise DatasetError(f"{where} is grey, but expected the colours of segments.")
    ids = rgb.astype(np.int64) @ np.array([1, 1 << 8, 1 << 16])
    for each in annotation.segments_info:
        if each.category_id not in classes:
            raise DatasetError(f"{where} has the class {each.category_id}, which has no name.")
        draw = partial(_segment, ids, each.id)
        yield LabelledRegion(classes[each.category_id], draw, id=f"the segment {each.id}")


def _place(maps: Path, name: str) -> Path:
    """Return the path of a file, which lies in the folder of its kind."""
    try:
        path = (maps / name).resolve()
    except (OSError, ValueError):
        raise DatasetError(f"{name!r:.100} is no name of a file.") from None
    if not path.is_relative_to(maps.resolve()):
        raise DatasetError(f"{name:.100} lies outside of its folder.")
    return path


def _segment(ids: npt.NDArray[np.int64], id_: int) -> npt.NDArray[np.bool_]:
    return np.equal(ids, id_)


PANOPTIC: Final = Layout("COCO, panoptic", _find)
