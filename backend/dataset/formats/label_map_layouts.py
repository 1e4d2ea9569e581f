"""Published data sets of label maps: their masks, the pictures that belong to them, the classes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from backend.dataset.formats.format_writer import NO_CLASS, ClassColour
from backend.dataset.formats.label_map import (
    NOTHING,
    LabelValues,
    find_names_file,
    read_label_maps,
    voc_values,
)
from backend.dataset.formats.layout import FoundMasks, Layout, SetFolder
from backend.dataset.mask_source import Limits, MaskSource, read_bytes
from backend.errors import DatasetError

#: Cityscapes' ``labelIds``, which KITTI has as well; None is nothing to learn.
_CITYSCAPES: Final[Sequence[str | None]] = (
    None,  # unlabeled
    None,  # ego vehicle
    None,  # rectification border
    None,  # out of roi
    "static",
    "dynamic",
    "ground",
    "road",
    "sidewalk",
    "parking",
    "rail track",
    "building",
    "wall",
    "fence",
    "guard rail",
    "bridge",
    "tunnel",
    "pole",
    "polegroup",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "caravan",
    "trailer",
    "train",
    "motorcycle",
    "bicycle",
)
#: Numbers in `_CITYSCAPES` of ``labelTrainIds``, which BDD100K has as well.
_TRAINED: Final = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_SEGNET: Final[Sequence[str | None]] = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
    None,  # unlabelled
)

_LOVEDA: Final[Sequence[str | None]] = (
    None,  # no data
    "background",
    "building",
    "road",
    "water",
    "barren",
    "forest",
    "agricultural",
)
_TRIMAP: Final[Sequence[str | None]] = (
    None,
    "pet",
    None,  # what is not the pet
    None,  # its edge
)

#: The classes of a folder; None where it is of another layout.
FindValues = Callable[[SetFolder, re.Match[str]], LabelValues | None]


@dataclass(frozen=True)
class _LabelMaps:
    """A layout of label maps.

    Args:
        masks: pattern of the paths of masks.
        image: path of a mask's picture without suffix, made of the pattern's groups.
        values: first mask of a folder -> the folder's classes.
        image_folders: see `FoundMasks`.
        in_colour: whether the colours of pixels say their classes.
    """

    name: str
    masks: re.Pattern[str]
    image: str
    values: FindValues
    image_folders: Sequence[str] = ()
    in_colour: bool = False

    def find(self, folder: SetFolder) -> FoundMasks | None:
        found = folder.matches(self.masks)
        values = self.values(folder, found[0]) if found else None
        if values is None:
            return None

        def read(limits: Limits, names: Path | None) -> Iterator[MaskSource]:
            maps = ((folder.place(match[0]), match.expand(self.image)) for match in found)
            own = LabelValues.read(names) if names is not None else values
            return read_label_maps(maps, folder.root, own, limits, in_colour=self.in_colour)

        return FoundMasks(self.name, read, self.image_folders)


def _listed(file: str, names: Sequence[str | None]) -> LabelValues:
    return LabelValues({NO_CLASS: None, **dict(enumerate(names))}, file=file)


def _always(data_set: str, names: Sequence[str | None], beside: str = "") -> FindValues:
    """Return the classes of a data set, or those of a file that lies in its folder.

    Many sets of one's own have the folders of a published one, and other classes; Datumaro writes
    ``label_colors.txt`` then. With `beside`, a folder of that name has the pictures.
    """

    def find(folder: SetFolder, _: re.Match[str]) -> LabelValues | None:
        if beside and not any(f"/{beside}/" in f"/{name}" for name in folder.files):
            return None
        own = find_names_file(folder.root) or folder.find("label_colors.txt")
        return _listed(data_set, names) if own is None else LabelValues.read(own)

    return find


# ---- files of classes ----------------------------------------------------------------------------

_LIMITS: Final = Limits(max_file_mb=16)


def _lines(path: Path) -> list[str]:
    text = read_bytes(path, _LIMITS).decode("utf-8-sig", "replace")
    return [line for line in text.splitlines() if line.strip()]


def _voc(folder: SetFolder, mask: re.Match[str]) -> LabelValues:
    """Return the classes of a file beside ``SegmentationClass``, else those of PASCAL VOC."""
    beside = find_names_file(folder.root / mask["top"])
    return LabelValues.read(beside) if beside is not None else voc_values()


def _labelme2voc(folder: SetFolder, _: re.Match[str]) -> LabelValues | None:
    path = folder.find("class_names.txt")
    if path is None:
        return None
    names = [line.strip() for line in _lines(path) if line.strip() != "__ignore__"]
    return _listed(str(path), [None if name == "_background_" else name for name in names])


def _mapillary(folder: SetFolder, _: re.Match[str]) -> LabelValues | None:
    path = folder.find("config_v2.0.json", "config_v1.2.json", "config.json")
    try:
        rows = json.loads(read_bytes(path, _LIMITS))["labels"] if path else []
        names = [str(row["readable"]) for row in rows]
    except (KeyError, TypeError, ValueError):
        return None
    none = ("unlabeled", "ego vehicle")
    kept = [None if name.lower() in none else name for name in names]
    return _listed(str(path), kept) if kept else None


def _ade20k(folder: SetFolder, _: re.Match[str]) -> LabelValues | None:
    """Return the names of ``objectInfo150.txt``, the first of each; 0 is all else."""
    path = folder.find("objectInfo150.txt")
    if path is None:
        return None
    rows = [line.split("\t") for line in _lines(path)[1:]]
    return _listed(str(path), [None, *(row[-1].split(",")[0].strip() for row in rows)])


def _coco_stuff(folder: SetFolder, _: re.Match[str]) -> LabelValues | None:
    """Return the names of ``labels.txt``, ``1: person`` and so on; a mask has one less."""
    path = folder.find("labels.txt")
    rows = [line.partition(":") for line in _lines(path)] if path is not None else []
    if not rows or not all(number.strip().isdigit() for number, _, _ in rows):
        return None
    names: dict[int, str | None] = {int(number) - 1: name.strip() for number, _, name in rows}
    names.pop(-1, None)  # unlabeled
    return LabelValues({**names, NO_CLASS: None}, file=str(path))


def _roboflow(folder: SetFolder, _: re.Match[str]) -> LabelValues | None:
    """Return the classes of ``_classes.csv``: a value and its name a line."""
    path = folder.find("_classes.csv")
    if path is None:
        return None
    names: dict[int, str | None] = {NO_CLASS: None}
    for value, *rest in csv.reader(_lines(path)[1:]):
        name = ",".join(rest).strip()
        names[_number(value, path)] = None if name.lower() in NOTHING else name
    return LabelValues(names, file=str(path))


def _class_dict(folder: SetFolder, _: re.Match[str]) -> LabelValues | None:
    """Return the classes of ``class_dict.csv``: a name and its red, green and blue a line."""
    path = folder.find("class_dict.csv")
    if path is None:
        return None
    names: dict[int, str | None] = {NO_CLASS: None}
    colours: dict[int, ClassColour] = {}
    for value, row in enumerate(csv.reader(_lines(path)[1:])):
        name, *levels = (cell.strip() for cell in row)
        if len(levels) != 3:
            raise DatasetError(f"Expected {path} to have lines as name,r,g,b.")
        red, green, blue = (_number(level, path) for level in levels)
        names[value] = None if name.lower() in (*NOTHING, "unknown") else name
        colours[value] = red, green, blue
    return LabelValues(names, colours, str(path), is_by_colour=True)


def _number(text: str, path: Path) -> int:
    if not text.strip().isdigit():
        raise DatasetError(f'Expected a whole number in {path}, but got "{text[:20]}".')
    return int(text)


def _camvid(folder: SetFolder, mask: re.Match[str]) -> LabelValues:
    path = folder.find("label_colors.txt")
    if path is None:
        raise DatasetError(
            f"{folder.path} looks like CamVid: put its label_colors.txt there, or name it by "
            "--colors label_colors.txt --suffix _L."
        )
    return replace(LabelValues.read(path), is_by_colour=True)


def _is_camvid(folder: SetFolder, mask: re.Match[str]) -> LabelValues | None:
    """Return CamVid's classes where all names end as its masks do, or its file is there."""
    pngs = [name for name in folder.files if name.endswith(".png")]
    ends = sum(name.endswith("_L.png") for name in pngs)
    is_whole = 2 * ends >= len(pngs) or folder.find("label_colors.txt") is not None
    return _camvid(folder, mask) if is_whole else None


# ---- the layouts ---------------------------------------------------------------------------------

#: The first that fits counts: those that a file of classes gives away stand first.
_LAYOUTS: Final = (
    _LabelMaps(
        "labelme2voc",
        re.compile(r"(?P<top>(?:.*/)?)SegmentationClass(?:PNG)?/(?P<name>.+)\.png"),
        r"\g<name>",
        _labelme2voc,
        ("JPEGImages",),
    ),
    _LabelMaps(
        "PASCAL VOC",
        re.compile(r"(?P<top>(?:.*/)?)SegmentationClass(?:Aug|PNG)?/(?P<name>.+)\.png"),
        r"\g<name>",
        _voc,
        ("JPEGImages",),
    ),
    _LabelMaps(
        "Cityscapes",
        re.compile(r"(?P<name>.+)_gt(?:Fine|Coarse)_labelIds\.png"),
        r"\g<name>_leftImg8bit",
        _always("Cityscapes", _CITYSCAPES),
    ),
    _LabelMaps(
        "Cityscapes, classes of training",
        re.compile(r"(?P<name>.+)_gt(?:Fine|Coarse)_labelTrainIds\.png"),
        r"\g<name>_leftImg8bit",
        _always("Cityscapes", [_CITYSCAPES[at] for at in _TRAINED]),
    ),
    _LabelMaps(
        "KITTI, semantic segmentation",
        re.compile(r"(?P<name>(?:.*/)?semantic/.+)\.png"),
        r"\g<name>",
        _always("KITTI", _CITYSCAPES, "image_2"),
        ("image_2",),
    ),
    _LabelMaps(
        "BDD100K",
        re.compile(r"(?:.*/)?sem_seg/masks/(?P<name>.+)\.png"),
        r"\g<name>",
        _always("BDD100K", [_CITYSCAPES[at] for at in _TRAINED]),
        ("10k",),
    ),
    _LabelMaps(
        "Mapillary Vistas 2.0",
        re.compile(r"(?P<part>(?:.*/)?)v2\.0/labels/(?P<name>.+)\.png"),
        r"\g<part>images/\g<name>",
        _mapillary,
    ),
    _LabelMaps(
        "Mapillary Vistas",
        re.compile(r"(?P<part>(?:.*/)?)(?:v1\.2/)?labels/(?P<name>.+)\.png"),
        r"\g<part>images/\g<name>",
        _mapillary,
    ),
    _LabelMaps(
        "ADE20K, scene parsing",
        re.compile(r"(?P<top>(?:.*/)?)annotations/(?P<name>(?:training|validation)/.+)\.png"),
        r"\g<top>images/\g<name>",
        _ade20k,
    ),
    _LabelMaps(
        "COCO-Stuff",
        re.compile(r"(?P<name>(?:.*/)?(?:COCO_\w+_)?\d{12})\.png"),
        r"\g<name>",
        _coco_stuff,
        ("images",),
    ),
    _LabelMaps(
        "Roboflow, semantic masks",
        re.compile(r"(?P<name>.+)_mask\.png"),
        r"\g<name>",
        _roboflow,
    ),
    _LabelMaps(
        "CamVid of Kaggle",
        re.compile(r"(?P<top>(?:.*/)?)(?P<part>train|val|test)_labels/(?P<name>.+?)(?:_L)?\.png"),
        r"\g<top>\g<part>/\g<name>",
        _class_dict,
        in_colour=True,
    ),
    _LabelMaps(
        "DeepGlobe, land cover",
        re.compile(r"(?P<name>.+)_mask\.png"),
        r"\g<name>_sat",
        _class_dict,
        in_colour=True,
    ),
    _LabelMaps(
        "CamVid of SegNet",
        re.compile(r"(?P<top>(?:.*/)?)(?P<part>train|val|test|default)annot/(?P<name>.+)\.png"),
        r"\g<top>\g<part>/\g<name>",
        _always("CamVid of SegNet", _SEGNET),
    ),
    _LabelMaps(
        "LoveDA",
        re.compile(r"(?P<top>(?:.*/)?)masks_png/(?P<name>.+)\.png"),
        r"\g<top>images_png/\g<name>",
        _always("LoveDA", _LOVEDA),
    ),
    _LabelMaps(
        "Oxford-IIIT Pet",
        re.compile(r"(?P<top>(?:.*/)?)annotations/trimaps/(?P<name>.+)\.png"),
        r"\g<top>images/\g<name>",
        _always("Oxford-IIIT Pet", _TRIMAP),
    ),
    _LabelMaps(
        "CamVid",
        re.compile(r"(?P<name>.+)_L\.png"),
        r"\g<name>",
        _is_camvid,
        in_colour=True,
    ),
)

LABEL_MAP_LAYOUTS: Final = tuple(Layout(each.name, each.find) for each in _LAYOUTS)
