"""Read CVAT's own XML of images: masks, polygons, boxes and ellipses.

The runs of a mask go row by row through its box, and begin with pixels outside of it
(https://docs.cvat.ai/docs/manual/advanced/xml_format/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from backend.annotations.regions import LabelledRegion
from backend.dataset.formats.layout import Layout, layout_of_files
from backend.dataset.formats.shapes import (
    BROKEN,
    box_ring,
    draw_rows,
    ellipse_ring,
    fill_rings,
    paste,
    points_of,
    told_as_broken,
)
from backend.dataset.mask_source import Limits, MaskSource, read_bytes
from backend.errors import DatasetError
from clearclip_core import BoolMask

_LIMITS: Final = Limits(max_file_mb=1 << 8)  # of a file with the masks of all pictures

_SHAPES: Final = ("mask", "polygon", "box", "ellipse")


def _is_one(head: bytes) -> bool:
    return b"<annotations" in head


def _read(root: Path, files: Sequence[Path], limits: Limits) -> Iterator[MaskSource]:
    for path in files:
        try:
            images = fromstring(read_bytes(path, _LIMITS)).findall("image")
            sizes = [(int(each.attrib["height"]), int(each.attrib["width"])) for each in images]
            names = [each.attrib["name"] for each in images]
        except (*BROKEN, ParseError, DefusedXmlException):
            raise DatasetError(f"{path} is no XML file of CVAT, or is damaged.") from None
        if not images:
            raise DatasetError(
                f"{path} has no images: of a film, export it from CVAT as “CVAT for images”."
            )
        for image, name, size_hw in zip(images, names, sizes, strict=True):
            read_regions = partial(_regions, image, name)
            yield MaskSource(name, name, read_regions, has_objects=True, size_hw=size_hw)


def _regions(image: Element, where: str, size_hw: tuple[int, int]) -> Iterator[LabelledRegion]:
    shapes = [each for each in image if each.tag in _SHAPES]
    for number, shape in enumerate(shapes, 1):
        id_ = f"the shape {number}"
        draw = partial(_draw, shape, f"{where}: {id_}", size_hw)
        yield LabelledRegion(shape.get("label", "object"), draw, id=id_)


def _draw(shape: Element, where: str, size_hw: tuple[int, int]) -> BoolMask:
    with told_as_broken(where):
        if shape.tag == "mask":
            left, top, width, height = (
                int(shape.attrib[key]) for key in ("left", "top", "width", "height")
            )
            if width > size_hw[1] or height > size_hw[0]:  # before its pixels take memory
                raise ValueError("its mask is larger than the picture")
            runs = [int(each) for each in shape.attrib["rle"].split(",")]
            return paste(draw_rows(runs, (height, width)), left, top, size_hw)
        return fill_rings([_ring(shape)], size_hw)


def _ring(shape: Element) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    if shape.tag == "polygon":
        return points_of([each.split(",") for each in shape.attrib["points"].split(";")])
    if shape.tag == "box":
        return box_ring(*(float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr")))
    x, y, radius_x, radius_y = (float(shape.attrib[key]) for key in ("cx", "cy", "rx", "ry"))
    return ellipse_ring(x, y, radius_x, radius_y, float(shape.get("rotation", 0)))


CVAT: Final[Layout] = layout_of_files("CVAT's XML", ".xml", _is_one, _read, ("images",))
