"""Read Supervisely's projects: ``meta.json``, and ``ann/NAME.json`` beside ``img/NAME``.

A bitmap is a compressed PNG at a place; polygons have holes
(https://docs.supervisely.com/customization-and-integration/00_ann_format_navi).
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from backend.annotations.regions import LabelledRegion
from backend.dataset.formats.layout import Layout, layout_of_files
from backend.dataset.formats.shapes import (
    BROKEN,
    box_ring,
    fill_rings,
    paste,
    points_of,
    told_as_broken,
)
from backend.dataset.mask_source import Limits, MaskSource, read_bytes, relative_name
from backend.errors import DatasetError
from clearclip_core import BoolMask
from clearclip_core.images.opening import open_image

_MOST_BYTES: Final = 1 << 27  # of an unpacked bitmap, a PNG


def _is_one(head: bytes) -> bool:
    return b'"geometryType"' in head or (b'"objects"' in head and b'"tags"' in head)


def _read(root: Path, files: Sequence[Path], limits: Limits) -> Iterator[MaskSource]:
    for path in files:
        where = relative_name(path, root)
        try:
            found = json.loads(read_bytes(path, limits))
            size_hw = int(found["size"]["height"]), int(found["size"]["width"])
            objects = [(str(each["classTitle"]), each) for each in found["objects"]]
        except (*BROKEN, RecursionError):
            raise DatasetError(f"{path} is no file of Supervisely, or lacks a field.") from None
        name = where.removesuffix(path.suffix).replace("ann/", "img/")  # a.jpg.json is of a.jpg
        read_regions = partial(_regions, objects, where)
        yield MaskSource(name, where, read_regions, has_objects=True, size_hw=size_hw)


def _regions(
    objects: Sequence[tuple[str, Mapping[str, Any]]], where: str, size_hw: tuple[int, int]
) -> Iterator[LabelledRegion]:
    for number, (label, thing) in enumerate(objects, 1):
        id_ = f"the object {number}"
        yield LabelledRegion(label, partial(_draw, thing, f"{where}: {id_}", size_hw), id=id_)


def _draw(thing: Mapping[str, Any], where: str, size_hw: tuple[int, int]) -> BoolMask:
    with told_as_broken(where):
        kind = thing["geometryType"]
        if kind == "bitmap":
            left, top = (int(number) for number in thing["bitmap"]["origin"])
            return paste(_unpack(thing["bitmap"]["data"]), left, top, size_hw)
        if kind not in ("polygon", "rectangle"):
            return np.zeros(size_hw, np.bool_)
        ring = points_of(thing["points"]["exterior"])
        if kind == "rectangle":
            ring = box_ring(*ring.min(axis=0).tolist(), *ring.max(axis=0).tolist())
        holes = [points_of(each) for each in thing["points"].get("interior") or ()]
        return fill_rings([ring], size_hw, holes)


def _unpack(data: str) -> BoolMask:
    """Return the pixels of a bitmap; where it has transparency, that says them."""
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(base64.b64decode(data), _MOST_BYTES)
    if unpacking.unconsumed_tail:
        raise ValueError("its bitmap is too large")
    with open_image(io.BytesIO(content), formats=("PNG",)) as image:
        band = image.getchannel("A") if "A" in image.getbands() else image.convert("L")
        return np.asarray(band) > 0


SUPERVISELY: Final[Layout] = layout_of_files("Supervisely", ".json", _is_one, _read, ("img",))
