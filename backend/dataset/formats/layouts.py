"""Find out how a folder or a file has its masks, by the list of layouts, and read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from backend.dataset.formats.coco import find_coco_files, read_coco
from backend.dataset.formats.cvat import CVAT
from backend.dataset.formats.darwin import DARWIN
from backend.dataset.formats.datumaro import DATUMARO
from backend.dataset.formats.foreign import BOXES, FOREIGN, JPEG_MASKS
from backend.dataset.formats.label_map import (
    find_maps,
    read_binary_masks,
    read_class_map,
    read_index_png,
)
from backend.dataset.formats.label_map_layouts import LABEL_MAP_LAYOUTS
from backend.dataset.formats.labelme import find_labelme_files, read_labelme
from backend.dataset.formats.layout import FoundMasks, Layout, SetFolder
from backend.dataset.formats.panoptic import PANOPTIC
from backend.dataset.formats.supervisely import SUPERVISELY
from backend.dataset.formats.via import VIA
from backend.dataset.formats.yolo import find_label_files, read_yolo
from backend.dataset.mask_source import Limits, MaskSource, read_bytes
from backend.errors import DatasetError

#: Formats that may be named; of layouts, which are found, there are more.
MaskFormat = Literal["index-png", "binary-masks", "coco", "labelme", "yolo"]

_TITLES: Final[dict[MaskFormat, str]] = {
    "index-png": "label maps",
    "binary-masks": "a mask for each class and picture",
    "coco": "COCO",
    "labelme": "LabelMe",
    "yolo": "YOLO, segmentation",
}

#: Files beside label maps that say their classes.
_NAMES: Final = ("classes.json", "names.txt", "label_colors.txt")

#: Suffixes of files that are a whole data set.
_ONE_FILE: Final = (".json", ".xml", ".ndjson")


@dataclass(frozen=True)
class ReadingOptions:
    """What a person says of masks: their format, and files of names and colours.

    `suffix` is the end of the names of label maps, and after ``=`` that of pictures in its place.
    """

    format: MaskFormat | None = None
    names: Path | None = None
    colours: Path | None = None
    suffix: str = ""


def find_masks(path: Path, options: ReadingOptions | None = None) -> FoundMasks:
    """Return the masks of a folder or a file, of the layout that it has or the format given.

    Raises:
        DatasetError: it has no masks, those of several formats, or of a layout that is not read.
    """
    options = options or ReadingOptions()
    format_ = options.format
    if format_ is None and (options.colours or options.suffix):
        format_ = "index-png"
    if format_ is not None:
        return _of_format(format_, path, options)

    folder = _open_folder(path)
    found = next(filter(None, (layout.find(folder) for layout in LAYOUTS)), None)
    if found is not None:
        return found
    kinds = "label maps (*.png), COCO files (*.json) or YOLO's files (*.txt)"
    raise DatasetError(f"Expected {path} to have {kinds}, but it has none.")


def _open_folder(path: Path) -> SetFolder:
    suffix = path.suffix.lower()
    if path.is_file() and suffix not in _ONE_FILE:
        raise DatasetError(
            f"Expected {path} to be a folder or a file of annotations (*.json, *.xml): "
            + ("unpack it first." if suffix == ".zip" else "name its folder.")
        )
    return SetFolder(path)


def read_masks(path: Path, options: ReadingOptions, limits: Limits) -> Iterator[MaskSource]:
    """Iterate over the masks in a folder or a file; see `find_masks`."""
    return find_masks(path, options).read(limits, options.names)


# ---- the formats that may be named ---------------------------------------------------------------


def _of_format(format_: MaskFormat, path: Path, options: ReadingOptions) -> FoundMasks:
    if format_ != "index-png" and (options.colours or options.suffix):
        raise DatasetError("Colours and suffixes are those of label maps: --format index-png.")

    def read(limits: Limits, names: Path | None) -> Iterator[MaskSource]:
        if format_ == "index-png":
            colours, suffix = options.colours, options.suffix
            return read_index_png(path, names, limits, colours=colours, suffix=suffix)
        if format_ == "coco":
            return read_coco(path, names)
        if format_ == "yolo":
            return read_yolo(path, names, limits)
        if format_ == "labelme":
            return read_labelme(path, limits)
        return read_binary_masks(path, limits)

    return FoundMasks(_TITLES[format_], read, ("images",))


def _in_folder_of_its_own(folder: SetFolder) -> FoundMasks | None:
    """Find a format by a folder that it alone has, such as ``masks``."""
    path = folder.path
    maps_root, maps = find_maps(path)
    texts_root, texts = find_label_files(path)
    found: list[MaskFormat] = []
    if maps and maps_root != path:
        found.append("index-png")
    if any(each.parent != path for each in find_coco_files(path)):
        found.append("coco")
    if texts and texts_root != path:
        found.append("yolo")

    if len(found) > 1:
        raise DatasetError(f"{path} has masks as {', '.join(found)}: say which by --format.")
    return _of_format(found[0], path, ReadingOptions()) if found else None


def _beside_names(folder: SetFolder) -> FoundMasks | None:
    has_names = any((folder.path / name).is_file() for name in _NAMES)
    return _as("index-png", folder, has_names and bool(find_maps(folder.path)[1]))


def _labelme(folder: SetFolder) -> FoundMasks | None:
    files = find_coco_files(folder.path)
    is_it = folder.path.is_dir() and bool(files) and files[0] in find_labelme_files(folder.path)[1]
    return _as("labelme", folder, is_it)


def _coco(folder: SetFolder) -> FoundMasks | None:
    return _as("coco", folder, bool(find_coco_files(folder.path)))


def _yolo(folder: SetFolder) -> FoundMasks | None:
    return _as("yolo", folder, bool(find_label_files(folder.path)[1]))


def _by_class(folder: SetFolder) -> FoundMasks | None:
    """Find folders of classes, whose files have the same names and two values at most."""
    maps = [each for each in find_maps(folder.path)[1] if each.parent != folder.path]
    names = Counter(each.name for each in maps)
    if len(maps) != names.total() or len(maps) == len(names):
        return None
    one_each = {each.parent: each for each in maps}.values()
    return _as("binary-masks", folder, all(map(_is_binary, one_each)))


def _is_binary(path: Path) -> bool:
    try:
        values = read_class_map(read_bytes(path, Limits()), path.name, Limits()).values
    except DatasetError:
        return False
    return values.ndim == 2 and len(np.unique(values)) <= 2


def _label_maps(folder: SetFolder) -> FoundMasks | None:
    return _as("index-png", folder, bool(find_maps(folder.path)[1]))


def _as(format_: MaskFormat, folder: SetFolder, is_it: bool) -> FoundMasks | None:
    return _of_format(format_, folder.path, ReadingOptions()) if is_it else None


#: All layouts: the first that finds masks counts. PNGs stand last, which may be the pictures.
LAYOUTS: Final = (
    *FOREIGN,
    CVAT,
    SUPERVISELY,
    VIA,
    DATUMARO,
    DARWIN,
    PANOPTIC,
    *LABEL_MAP_LAYOUTS,
    Layout("a format in a folder of its own", _in_folder_of_its_own),
    BOXES,
    Layout("label maps beside names", _beside_names),
    Layout("LabelMe", _labelme),
    Layout("COCO", _coco),
    Layout("YOLO", _yolo),
    Layout("binary masks", _by_class),
    Layout("label maps", _label_maps),
    JPEG_MASKS,
)
