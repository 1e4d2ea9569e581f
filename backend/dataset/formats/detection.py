"""Find out in which format a folder or a file has its masks, and read it; LabelMe's, too."""

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from backend.annotations.regions import LabelledRegion
from backend.dataset.formats.coco import find_coco_files, read_coco
from backend.dataset.formats.label_map import FILES, find_maps, read_binary_masks, read_index_png
from backend.dataset.formats.yolo import find_label_files, read_yolo
from backend.dataset.mask_source import Limits, MaskSource, find_below, read_bytes, relative_name
from backend.errors import DatasetError
from backend.label_studio.region_reader import fill_outline
from clearclip_core import BoolMask
from clearclip_core.images.opening import open_image

MaskFormat = Literal["index-png", "binary-masks", "coco", "labelme", "yolo"]

#: Files beside label maps that say their classes.
_NAMES: Final = ("classes.json", "names.txt", "label_colors.txt")

#: End of the names of label maps, the data set that has it, and what is to be given.
_SUFFIXES: Final = (
    ("_labelIds", "Cityscapes", "_gtFine_labelIds=_leftImg8bit"),
    ("_L", "CamVid", "_L"),
)


def detect_format(path: Path) -> MaskFormat:
    """Return the format of the masks in a folder or a file.

    Folders that only one format has count first, such as ``masks``, then what lies in the folder
    itself; PNGs last, which may be the pictures.
    """
    if path.is_file() and path.suffix.lower() != ".json":
        raise DatasetError(
            f"Expected {path} to be a folder or a COCO file (*.json): "
            + ("unpack it first." if path.suffix.lower() == ".zip" else "name its folder.")
        )
    maps, coco, texts = find_maps(path), find_coco_files(path), find_label_files(path)
    by_folder: dict[MaskFormat, bool] = {
        "index-png": bool(maps[1]) and maps[0] != path,
        "coco": any(each.parent != path for each in coco),
        "yolo": bool(texts[1]) and texts[0] != path,
    }
    if found := [format_ for format_, is_there in by_folder.items() if is_there]:
        if len(found) > 1:
            raise DatasetError(f"{path} has masks as {', '.join(found)}: say which by --format.")
        return found[0]
    if advice := _look_alike(path, maps[1]):
        raise DatasetError(f"{path} looks like {advice}")
    if maps[1] and any((path / name).is_file() for name in _NAMES):
        return "index-png"
    if coco:
        return "labelme" if path.is_dir() and coco[0] in find_labelme_files(path)[1] else "coco"
    if texts[1]:
        return "yolo"
    if maps[1]:
        return "index-png"
    kinds = "label maps (*.png), COCO files (*.json) or YOLO's files (*.txt)"
    raise DatasetError(f"Expected {path} to have {kinds}, but it has none.")


def _look_alike(path: Path, maps: Sequence[Path]) -> str:
    """Return what a folder seems to be that needs more said, and what."""
    for suffix, name, asked in _SUFFIXES:
        if maps and any(each.stem.endswith(suffix) for each in maps):
            return f"{name}: give --suffix {asked}, and name the file of its classes by --names."
    if any((place / name).is_file() for place in (path, path.parent) for name in FILES):
        return ""
    xml = find_below(path, (), ".xml")[1]
    head = read_bytes(xml[0], Limits())[: 1 << 16] if xml else b""
    if b"<annotations" in head:
        return "CVAT's XML: export it from there as COCO, or convert it with datumaro."
    if b"<polygon" in head:
        return "LabelMe's XML: convert it to COCO with datumaro."
    if b"<bndbox" in head:
        return "boxes of PASCAL VOC, which are no masks: those would be in SegmentationClass."
    names = Counter(each.name for each in maps if each.parent != path)
    if len(maps) == names.total() > len(names):
        return "a folder of masks for each class: give --format binary-masks."
    return ""


def read_masks(
    path: Path,
    format_: MaskFormat | None,
    names: Path | None,
    limits: Limits,
    *,
    colours: Path | None = None,
    suffix: str = "",
) -> Iterator[MaskSource]:
    """Iterate over the masks in a folder or a file; for the options see the readers."""
    format_ = format_ or ("index-png" if colours or suffix else detect_format(path))
    if format_ == "index-png":
        return read_index_png(path, names, limits, colours=colours, suffix=suffix)
    if colours or suffix:
        raise DatasetError("Colours and suffixes are those of label maps: --format index-png.")
    if format_ in ("coco", "yolo"):
        return read_coco(path, names) if format_ == "coco" else read_yolo(path, names, limits)
    return {"labelme": read_labelme, "binary-masks": read_binary_masks}[format_](path, limits)


# ---- LabelMe -------------------------------------------------------------------------------------

_BROKEN: Final = (AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError)

_Shape = tuple[int, Mapping[str, Any]]  # and its number in the file


def find_labelme_files(folder: Path) -> tuple[Path, list[Path]]:
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
        except (*_BROKEN, RecursionError):
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
        try:
            _add(shape, mask)
        except _BROKEN as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else f"{error!s:.100}"
            raise DatasetError(f"{where}: the shape {number} is broken, {why}.") from None
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
    with open_image(io.BytesIO(base64.b64decode(encoded)), formats=("PNG",)) as image:
        left, top = np.rint(points[0]).astype(int).tolist()
        part = mask[top : top + image.height, left : left + image.width]
        if min(left, top) < 0 or part.shape != (image.height, image.width):
            raise ValueError("its mask lies beyond the picture")
        part |= np.asarray(image.convert("L")) > 0


def _has_shapes(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(1 << 16)
    return b'"shapes"' in head and b'"images"' not in head
