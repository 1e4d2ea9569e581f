"""Read LabelMe's files: one JSON file a picture, with polygons, rectangles and masks."""

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
from backend.dataset.mask_source import Limits, MaskSource, find_below, read_bytes, relative_name
from backend.errors import DatasetError
from backend.label_studio.region_reader import fill_outline
from clearclip_core import BoolMask
from clearclip_core.images.opening import open_image

_BROKEN: Final = (AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError)

_Shape = tuple[int, Mapping[str, Any]]  # and its number in the file


def find_labelme_files(folder: Path) -> tuple[Path, list[Path]]:
    """Return the folder that names start from, and the files in it and below it by name."""
    return find_below(folder, (), lambda path: path.suffix.lower() == ".json" and _has_shapes(path))


def read_labelme(folder: Path, limits: Limits) -> Iterator[MaskSource]:
    """Iterate over LabelMe's files; shapes of one label and group are parts of one thing."""
    root, files = find_labelme_files(folder)
    if not files:
        raise DatasetError(f'Expected LabelMe\'s files with "shapes" at {root}/**/*.json.')
    for path in files:
        content = read_bytes(path, limits)
        try:
            found = json.loads(content)
            picture = Path(str(found["imagePath"]).replace("\\", "/")).name
            shapes = [(str(each["label"]), each) for each in found["shapes"]]
            size_hw = int(found["imageHeight"]), int(found["imageWidth"])
        except (*_BROKEN, RecursionError) as error:
            raise DatasetError(f"{path} is no file of LabelMe ({str(error)[:100]}).") from None
        where = relative_name(path, root)
        read_regions = partial(_regions, shapes, where)
        name = (Path(where).parent / picture).as_posix()
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
        try:
            _add(shape, mask)
        except _BROKEN as error:
            raise DatasetError(
                f"{where}: the shape {number} is broken, {str(error)[:100]}."
            ) from None
    return mask


def _add(shape: Mapping[str, Any], mask: BoolMask) -> None:
    """Add the pixels of a shape to a mask; lines, points and circles have none."""
    kind = shape.get("shape_type") or "polygon"
    points = np.array(shape["points"], np.float64).reshape(-1, 2)
    if kind == "mask":
        _add_mask(str(shape["mask"]), points, mask)
    elif kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        fill_outline(np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), mask)
    elif kind == "polygon" and len(points) >= 3:
        fill_outline(points, mask)


def _add_mask(encoded: str, points: npt.NDArray[np.float64], mask: BoolMask) -> None:
    """Add a mask that is a PNG of the box whose corners are its points."""
    with open_image(io.BytesIO(base64.b64decode(encoded)), formats=("PNG",)) as picture:
        left, top = np.rint(points[0]).astype(int).tolist()
        part = mask[top : top + picture.height, left : left + picture.width]
        if min(left, top) < 0 or part.shape != (picture.height, picture.width):
            raise ValueError("its mask lies beyond the picture")
        part |= np.asarray(picture.convert("L")) > 0


def _has_shapes(path: Path) -> bool:
    """Return whether a JSON file begins as LabelMe's do, without reading all of it."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    return b'"shapes"' in head and b'"images"' not in head
