"""Read V7's Darwin JSON, versions 1 and 2: a file a picture, with polygons."""

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
from backend.dataset.formats.shapes import BROKEN, fill_rings, told_as_broken
from backend.dataset.mask_source import Limits, MaskSource, read_bytes, relative_name
from backend.errors import DatasetError
from clearclip_core import BoolMask


def _is_one(head: bytes) -> bool:
    return b'"annotations"' in head and (
        b'"slots"' in head or b"darwin" in head or b'"workview_url"' in head
    )


def _read(root: Path, files: Sequence[Path], limits: Limits) -> Iterator[MaskSource]:
    for path in files:
        where = relative_name(path, root)
        try:
            found = json.loads(read_bytes(path, limits))
            name = str(found["item"]["name"] if "item" in found else found["image"]["filename"])
            objects = [(str(each["name"]), each) for each in found["annotations"]]
        except (*BROKEN, RecursionError):
            raise DatasetError(f"{path} is no file of V7 Darwin, or lacks a field.") from None
        yield MaskSource(name, where, partial(_regions, objects, where), has_objects=True)


def _regions(
    objects: Sequence[tuple[str, Mapping[str, Any]]], where: str, size_hw: tuple[int, int]
) -> Iterator[LabelledRegion]:
    for number, (label, thing) in enumerate(objects, 1):
        if "polygon" in thing:
            id_ = f"the annotation {number}"
            draw = partial(_draw, thing["polygon"], f"{where}: {id_}", size_hw)
            yield LabelledRegion(label, draw, id=id_)


def _draw(polygon: Mapping[str, Any], where: str, size_hw: tuple[int, int]) -> BoolMask:
    """Fill the paths of a polygon; one inside of another is a hole."""
    mask = np.zeros(size_hw, np.bool_)
    with told_as_broken(where):
        paths = polygon.get("paths") or [polygon["path"], *polygon.get("additional_paths", ())]
        for path in paths:
            mask ^= fill_rings([_ring(path)], size_hw)
    return mask


def _ring(path: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float64]:
    return np.array([(point["x"], point["y"]) for point in path], np.float64).reshape(-1, 2)


DARWIN: Final[Layout] = layout_of_files("V7 Darwin", ".json", _is_one, _read)
