"""Read LabelMe's files: a JSON file a picture. X-AnyLabeling and AnyLabeling write them, too."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backend.annotations.regions import LabelledRegion
from backend.dataset.formats.shapes import (
    BROKEN,
    box_ring,
    ellipse_ring,
    fill_rings,
    paste,
    points_of,
    told_as_broken,
)
from backend.dataset.mask_source import Limits, MaskSource, find_below, read_bytes, relative_name
from backend.errors import DatasetError
from clearclip_core import BoolMask
from clearclip_core.images.opening import open_image

_HEAD_BYTES: Final = 1 << 16

_Shape = tuple[int, Mapping[str, Any]]  # and its number in the file


def find_labelme_files(folder: Path) -> tuple[Path, list[Path]]:
    """Return the folder that names start from, and LabelMe's files in it."""
    return find_below(folder, (), ".json", _has_shapes)


def read_labelme(folder: Path, limits: Limits) -> Iterator[MaskSource]:
    """Iterate over LabelMe's files; shapes of one label and group are parts of one thing."""
    root, files = find_labelme_files(folder)
    if not files:
        raise DatasetError(f'Expected LabelMe\'s files with "shapes" at {root}/**/*.json.')
    for path in files:
        content = read_bytes(path, limits)
        try:
            found = json.loads(content)
            image = Path(str(found["imagePath"]).replace("\\", "/")).name
            shapes = [(str(each["label"]), each) for each in found["shapes"]]
            size_hw = int(found["imageHeight"]), int(found["imageWidth"])
        except (*BROKEN, RecursionError):
            raise DatasetError(f"{path} is no file of LabelMe, or lacks a field.") from None
        where = relative_name(path, root)
        read_regions = partial(_regions, shapes, where)
        name = (Path(where).parent / image).as_posix()
        yield MaskSource(name, where, read_regions, has_objects=True, size_hw=size_hw)


def _regions(
    shapes: Sequence[tuple[str, Mapping[str, Any]]], where: str, size_hw: tuple[int, int]
) -> Iterator[LabelledRegion]:
    things: dict[tuple[str, str], list[_Shape]] = {}
    for number, (label, shape) in enumerate(shapes, 1):
        group = shape.get("group_id")
        key = f"#{number}" if group is None else str(group)
        things.setdefault((label, key), []).append((number, shape))
    for (label, _), some in things.items():
        draw = partial(_draw, some, where, size_hw)
        yield LabelledRegion(label, draw, id=f"the shape {some[0][0]}")


def _draw(shapes: Sequence[_Shape], where: str, size_hw: tuple[int, int]) -> BoolMask:
    mask = np.zeros(size_hw, np.bool_)
    for number, shape in shapes:
        with told_as_broken(f"{where}: the shape {number}"):
            points = points_of(shape["points"])
            if shape.get("shape_type") == "mask":
                mask |= _read_mask(str(shape["mask"]), points, size_hw)
            else:
                mask |= fill_rings([_ring(shape, points)], size_hw)
    return mask


def _ring(shape: Mapping[str, Any], points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the ring of a shape; lines and points have none.

    A rectangle has two corners, or, from X-AnyLabeling, which also turns them, four. The second
    point of a circle lies on it.
    """
    kind = shape.get("shape_type") or "polygon"
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points.tolist()
        return box_ring(left, top, right, bottom)
    if kind == "circle" and len(points) == 2:
        (x, y), _ = points.tolist()
        radius = float(np.hypot(*(points[1] - points[0])))
        return ellipse_ring(x, y, radius, radius)
    return points if kind in ("polygon", "rectangle", "rotation") else points[:0]


def _read_mask(encoded: str, points: npt.NDArray[np.float64], size_hw: tuple[int, int]) -> BoolMask:
    """Return a mask that is a PNG of the box whose corners are its points."""
    with open_image(io.BytesIO(base64.b64decode(encoded)), formats=("PNG",)) as image:
        left, top = np.rint(points[0]).astype(int).tolist()
        return paste(np.asarray(image.convert("L")) > 0, left, top, size_hw)


def _has_shapes(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return b'"shapes"' in head and b'"images"' not in head
