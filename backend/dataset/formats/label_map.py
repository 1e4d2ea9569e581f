"""Read and write label maps: PNGs whose pixels are class values, and the names of the values."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from backend.annotations.regions import LabelledRegion
from backend.dataset.formats.format_writer import (
    NO_CLASS,
    ClassColour,
    FormatWriter,
    ReadRows,
    WrittenImage,
)
from backend.dataset.mask_source import (
    Limits,
    MaskSource,
    check_mask_size,
    find_below,
    read_bytes,
    relative_name,
)
from backend.errors import DatasetError
from backend.label_studio.image_loader import UNDECODABLE
from clearclip_core import MapNames
from clearclip_core.images.drawing import blend
from clearclip_core.images.opening import open_image

#: Files that are looked for, in this order, where none is named.
FILES: Final = ("classes.json", "names.txt", "classes.txt", "labelmap.txt", "label_colors.txt")

_MAX_CLASSES: Final = 1 << 16
_LIMITS: Final = Limits(max_file_mb=16)

#: A name and its colour, ``road:128,64,128``; CVAT adds fields behind it. CamVid has them the other
#: way round, ``128 64 128 Road``.
_COLOUR_LINE: Final = re.compile(
    r"(?P<name>.{1,200}?)[:\s]\s*(?P<r>\d{1,3})\s*,\s*(?P<g>\d{1,3})\s*,\s*(?P<b>\d{1,3})"
    r"(?::.{0,200})?"
)
_CAMVID_LINE: Final = re.compile(
    r"\s*(?P<r>\d{1,3})\s+(?P<g>\d{1,3})\s+(?P<b>\d{1,3})\s+(?P<name>\S.{0,200})"
)
#: Classes of files of colours that stand for nothing, and the colour of VOC's outlines.
NOTHING: Final = ("background", "void")
_VOC_VOID: Final = (224, 224, 192)

_NO_CLASSES: Final = (
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    msgspec.ValidationError,
    yaml.YAMLError,
)

#: Of a YAML file with the names of classes.
_NAMES_KEY: Final = re.compile(rb"^names\s*:", re.MULTILINE)

_VOC_NAMES: Final = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]

_Value = Annotated[int, msgspec.Meta(ge=0, lt=_MAX_CLASSES)]


class _Class(msgspec.Struct):
    value: _Value
    name: Annotated[str, msgspec.Meta(pattern=r"\S")]
    colour: ClassColour | None = None


class _Classes(msgspec.Struct):
    classes: Annotated[list[_Class], msgspec.Meta(min_length=1, max_length=_MAX_CLASSES)]
    nothing: _Value | None = NO_CLASS
    background: _Value | None = None


def _coloured_lines(text: str) -> list[re.Match[str]]:
    """Return the lines of a file, each with a name and a colour; none where one has no colour."""
    found = []
    for line in text.splitlines():
        if line.strip()[:1] in "#":  # a comment, or nothing
            continue
        match = _COLOUR_LINE.fullmatch(line) or _CAMVID_LINE.fullmatch(line)
        if match is None:
            return []
        found.append(match)
    return found


@dataclass(frozen=True)
class LabelValues:
    """The classes of label maps."""

    names: Mapping[int, str | None]  # value -> name of its class; None for pixels that have none
    #: Value -> RGB of its class, if known.
    colours: Mapping[int, ClassColour] = field(default_factory=dict)
    file: str = ""
    is_by_colour: bool = False  # whether a palette's colours say the class, whatever the values

    @classmethod
    def find(cls, folder: Path, given: Path | None = None, *, in_yaml: bool = False) -> LabelValues:
        """Read the file given, else one with "names" `in_yaml`, or of `FILES`, here or above."""
        found = given or (in_yaml and _yaml_file(folder)) or find_names_file(folder)
        if not found:
            expected = f'data.yaml with "names", {FILES[0]}' if in_yaml else FILES[0]
            raise DatasetError(
                f"Expected {expected} or {FILES[1]} in {folder}, which say what the values of the "
                "masks stand for: name such a file by --names."
            )
        return cls.read(found)

    @classmethod
    def read(cls, path: Path) -> LabelValues:
        """Read the classes of a file.

        JSON is what `ClassTable.to_json` writes, a list of names, or an object of value -> name;
        YAML has these as "names". Other files have a name a line, or one and its colour.
        """
        content = read_bytes(path, _LIMITS)
        if path.suffix.lower() == ".json":
            return _read_classes(lambda: json.loads(content), path)
        if path.suffix.lower() in (".yaml", ".yml"):
            return _read_classes(lambda: yaml.safe_load(content)["names"], path)

        coloured = _coloured_lines(content.decode("utf-8", "replace"))
        if coloured:
            return _read_colours(coloured, path)

        try:
            given = MapNames.read(path)
        except (ValueError, OSError) as error:
            raise DatasetError(str(error)) from None
        labels = (None if i is None or i < 0 else given.labels[i].name for i in given.indices)
        return cls({NO_CLASS: None, **dict(enumerate(labels))}, file=str(path))


def find_names_file(folder: Path) -> Path | None:
    places = (place / name for place in (folder, folder.parent) for name in FILES)
    return next((place for place in places if place.is_file()), None)


def _yaml_file(folder: Path) -> Path | None:
    found = (path for each in (folder, folder.parent) for path in sorted(each.glob("*.y*ml")))
    return next((path for path in found if _NAMES_KEY.search(read_bytes(path, _LIMITS))), None)


def _read_colours(matches: Sequence[re.Match[str]], path: Path) -> LabelValues:
    names: dict[int, str | None] = {NO_CLASS: None}
    colours: dict[int, ClassColour] = {}
    for value, match in enumerate(matches):
        name = match["name"].strip()
        names[value] = None if name.lower() in NOTHING else name
        colours[value] = int(match["r"]), int(match["g"]), int(match["b"])
    if len(set(colours.values())) < len(colours) or max(map(max, colours.values())) > NO_CLASS:
        raise DatasetError(f"Expected {path} to have different colours of 0 to 255 each.")
    return LabelValues(names, colours, str(path), is_by_colour=True)


def voc_values() -> LabelValues:
    names: dict[int, str | None] = {0: None, NO_CLASS: None}
    names |= dict(enumerate(_VOC_NAMES, 1))
    return LabelValues(names, {value: _voc_colour(value) for value in names}, "PASCAL VOC")


def _voc_colour(value: int) -> ClassColour:
    """Return a colour of VOC's palette: three bits of the value for each bit of a level."""
    bits = np.array([value >> shift & 1 for shift in range(24)]).reshape(8, 3)
    red, green, blue = (bits << np.arange(7, -1, -1)[:, None]).sum(axis=0).tolist()
    return red, green, blue


def _class_rows(given: Any) -> list[Any]:
    """Return classes as rows of a value and a name: of a list of names, or value -> name, too."""
    if isinstance(given, dict):
        return [{"value": int(value), "name": name} for value, name in given.items()]
    return [
        {"value": value, "name": each} if isinstance(each, str) else each
        for value, each in enumerate(given)
    ]


def _read_classes(parse: Callable[[], Any], path: Path) -> LabelValues:
    try:
        found = parse()
        if not (isinstance(found, dict) and "classes" in found):
            found = {"classes": found}
        told = msgspec.convert(found | {"classes": _class_rows(found["classes"])}, _Classes)
        names: dict[int, str | None] = {each.value: each.name.strip() for each in told.classes}
        if len(names) != len(told.classes):
            raise ValueError("a value is there twice")
    except _NO_CLASSES as error:
        raise DatasetError(
            f'Expected {path} to hold "classes" with a "value" and a "name" each, a list of names, '
            f"or an object of value and name, but got something else ({str(error)[:100]})."
        ) from None

    if told.background is not None:
        names[told.background] = None
    empty: dict[int, str | None] = {} if told.nothing is None else {told.nothing: None}
    colours = {each.value: each.colour for each in told.classes if each.colour is not None}
    return LabelValues(empty | names, colours, str(path))


_VOC_FOLDER: Final = "SegmentationClass"  # of PASCAL VOC's label maps
_MASKS_FOLDER: Final = "masks"  # of all others

#: Offset of the bit depth in a PNG file: signature (8), length and type of IHDR (8), size (8).
_BIT_DEPTH_AT: Final = 24


@dataclass(frozen=True)
class ClassMap:
    """A label map: (H, W) uint8 or uint16, or colours (H, W, 3) uint8; with a palette (N, 3)."""

    values: npt.NDArray[Any]
    palette: npt.NDArray[np.uint8] | None
    where: str

    def regions(self, values: LabelValues, image_hw: tuple[int, int]) -> list[LabelledRegion]:
        check_mask_size(self.where, self.values.shape[:2], image_hw)
        if self.values.ndim == 3 or (values.is_by_colour and self.palette is not None):
            return self._by_colour(values).regions(replace(values, is_by_colour=False), image_hw)

        regions = []
        for value in np.flatnonzero(np.bincount(self.values.ravel())).tolist():
            if value not in values.names:
                told = f"{self.where} has the value {value}"
                raise DatasetError(f"{told}, which {values.file or 'no file'} does not name.")
            name = values.names[value]
            if name is not None:
                regions.append(LabelledRegion(name, partial(np.equal, self.values, value)))
        return regions

    def _by_colour(self, values: LabelValues) -> ClassMap:
        if not values.colours:
            raise DatasetError(
                f"{self.where} is a picture in colour, but expected a grey or palette one whose "
                "pixels are the values of classes: say what its colours stand for by --colors."
            )
        rgb = self.values if self.palette is None else self.palette.take(self.values, axis=0)
        packed = rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        value_of = {_VOC_VOID: NO_CLASS} | {rgb: value for value, rgb in values.colours.items()}
        found, places = np.unique(packed, return_inverse=True)
        table = np.zeros(len(found), np.uint16)
        for place, packed_ in enumerate(found.tolist()):
            colour = packed_ >> 16, packed_ >> 8 & 255, packed_ & 255
            if colour not in value_of:
                told = f"{self.where} has the colour {', '.join(map(str, colour))}"
                raise DatasetError(f"{told}, which {values.file} does not name.")
            table[place] = value_of[colour]
        return ClassMap(table[places].reshape(packed.shape), None, self.where)


def _read_pixels(
    content: bytes, where: str, limits: Limits
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
    """Return the values of a PNG file, (H, W) or (H, W, 3), and its palette, (P, 3) uint8."""
    try:
        with open_image(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width * image.height > limits.max_megapixels * 1e6:
                raise Image.DecompressionBombError
            if image.mode not in ("1", "L", "P", "I", "I;16", "RGB"):
                raise DatasetError(
                    f"{where} is a picture with transparency (mode {image.mode}), but expected a "
                    "grey or palette picture whose pixels are the values of classes."
                )
            image.load()  # which fails where the file is truncated
            colours = np.array(image.getpalette() or (), np.uint8).reshape(-1, 3)
            return np.asarray(image), colours if image.mode == "P" else None
    except Image.DecompressionBombError:
        raise DatasetError(f"{where} is over the limit of {limits.max_megapixels:g} MP.") from None
    except UNDECODABLE:
        raise DatasetError(f"{where} is no PNG picture, or is damaged or truncated.") from None


def read_class_map(content: bytes, where: str, limits: Limits) -> ClassMap:
    """Read a label map from the bytes of a PNG file."""
    values, palette = _read_pixels(content, where, limits)
    if values.dtype == np.bool_:
        return ClassMap(values.astype(np.uint8), None, where)

    bits = content[_BIT_DEPTH_AT]
    if palette is None and bits < 8 and values.ndim == 2:  # Pillow stretches these to 0 to 255
        values = values // np.uint8(255 // ((1 << bits) - 1))
    if values.dtype != np.uint8:
        values = values.astype(np.uint16)  # PNG has no more bits than these
    return ClassMap(values, palette, where)


def find_maps(folder: Path) -> tuple[Path, list[Path]]:
    """Return the folder that names start from, and the PNGs in it by name."""
    return find_below(folder, (_MASKS_FOLDER, _VOC_FOLDER), ".png")


def read_index_png(
    folder: Path,
    names: Path | None,
    limits: Limits,
    *,
    colours: Path | None = None,
    suffix: str = "",
) -> Iterator[MaskSource]:
    """Iterate over the label maps of a folder, its ``masks`` or ``SegmentationClass``.

    Files may say what values (`names`) or colours stand for; `suffix` is the end of the names of
    masks, and after ``=`` that of pictures in its place.
    """
    root, files = find_maps(folder)
    of_mask, _, of_image = suffix.partition("=")
    files = [path for path in files if path.stem.endswith(of_mask)]
    if not files:
        raise DatasetError(f"Expected label maps at {root}/**/*{of_mask}.png, but there are none.")
    if colours is not None:
        values = replace(LabelValues.read(colours), is_by_colour=True)
        if not values.colours:
            raise DatasetError(f"{colours} says no colours: expected lines as road:128,64,128.")
    else:
        values = _find_values(folder, names, files, limits)
    reader = _MapReader(values, limits, colours is not None)
    for path in files:
        source = MaskSource.of_file(path, root, limits, reader)
        yield replace(source, name=source.name.removesuffix(of_mask) + of_image)


def _find_values(
    folder: Path, names: Path | None, files: Sequence[Path], limits: Limits
) -> LabelValues:
    """Return the classes of a folder's label maps; without a file of names those of VOC."""
    if names is not None or find_names_file(folder) is not None:
        return LabelValues.find(folder, names)
    if find_maps(folder)[0].name == _VOC_FOLDER:
        return voc_values()
    if _are_of_one_thing(files, limits):
        raise DatasetError(_ONE_THING.format(folder=folder))
    return LabelValues.find(folder)


#: What to do with masks that say no class.
_ONE_THING: Final = (
    "{folder} has masks of one thing, 0 and 255, and does not say what it is: write a file "
    'classes.json there, {{"classes": [{{"value": 255, "name": "NAME"}}], "nothing": 0}}. Where '
    "their names end in _mask, and those of pictures do not, give --suffix _mask, too."
)


def _are_of_one_thing(files: Sequence[Path], limits: Limits) -> bool:
    """Return whether some of the label maps, spread over all, have no value but 0 and 255."""
    found = set[int]()
    for path in files[:: max(1, len(files) // 4)]:
        try:
            values = read_class_map(read_bytes(path, limits), path.name, limits).values
        except DatasetError:
            return False
        found.update(np.unique(values).tolist() if values.ndim == 2 else [-1])
    return found in ({255}, {0, 255})


def read_label_maps(
    maps: Iterable[tuple[Path, str]],
    root: Path,
    values: LabelValues,
    limits: Limits,
    *,
    in_colour: bool = False,
) -> Iterator[MaskSource]:
    """Iterate over label maps below a folder, each with the path of its picture, no suffix.

    `in_colour` says that grey pixels are colours, too, and no values.
    """
    reader = _MapReader(values, limits, in_colour)
    for path, name in maps:
        yield replace(MaskSource.of_file(path, root, limits, reader), name=name)


@dataclass(frozen=True)
class _MapReader:
    """Reads the regions of a label map from its bytes, for `MaskSource.of_file`."""

    values: LabelValues
    limits: Limits
    in_colour: bool  # whether grey pixels are colours, too, and no values

    def __call__(
        self, content: bytes, where: str, size_hw: tuple[int, int]
    ) -> list[LabelledRegion]:
        found = read_class_map(content, where, self.limits)
        if self.in_colour and found.palette is None and found.values.ndim == 2:
            found = replace(found, values=found.values[..., None].repeat(3, axis=2))
        return found.regions(self.values, size_hw)


def read_binary_masks(folder: Path, limits: Limits) -> Iterator[MaskSource]:
    """Iterate over the pictures of a folder of masks a class: ``CLASS/NAME.png``, nothing is 0."""
    root, files = find_maps(folder)
    by_name: dict[str, list[Path]] = {}
    for path in files:
        _, slash, name = relative_name(path, root).partition("/")
        if slash:
            by_name.setdefault(name[: -len(path.suffix)], []).append(path)
    if not by_name:
        raise DatasetError(f"Expected masks at {root}/CLASS/NAME.png, but there are none.")
    for name, paths in by_name.items():
        where = relative_name(paths[0], root)
        yield MaskSource(name, where, partial(_binary_regions, paths, root, limits))


def _binary_regions(
    paths: Sequence[Path], root: Path, limits: Limits, image_hw: tuple[int, int]
) -> Iterator[LabelledRegion]:
    for path in paths:
        where = relative_name(path, root)
        found = read_class_map(read_bytes(path, limits), where, limits).values
        check_mask_size(where, found.shape[:2], image_hw)
        painted = found[found != 0]
        if (painted.size and painted.min() != painted.max()) or found.ndim != 2:
            raise DatasetError(f"{where} is no mask of one class: it has several values.")
        if painted.size:
            yield LabelledRegion.of(where.split("/", 1)[0], found != 0)


# ---- writing -------------------------------------------------------------------------------------


class IndexPngWriter(FormatWriter):
    """Writes a label map of each picture, and lists of the pictures' names."""

    name = "index-png"
    title = "Label maps (MMSegmentation, own code)"
    files = frozenset({_MASKS_FOLDER, "splits"})
    has_label_maps = True

    def image_files(self, image: WrittenImage, entries: Sequence[Any]) -> Mapping[str, bytes]:
        return {f"{_MASKS_FOLDER}/{image.name}.png": image.label_png}

    def write_part(self, part: str, rows: ReadRows) -> None:
        names = "".join(f"{row.name}\n" for row in rows())
        self.frame.output.write(f"splits/{part}.txt", names.encode())


class OverlayWriter(FormatWriter):
    """Writes pictures under the colours of their classes, for people to look at."""

    name = "overlays"
    title = "Pictures under the colours of their classes, to look at"
    files = frozenset({"overlays"})
    has_label_maps = True
    has_images = True

    def image_files(self, image: WrittenImage, entries: Sequence[Any]) -> Mapping[str, bytes]:
        assert image.label_map is not None, "has_label_maps"
        assert image.file is not None, "has_images"
        values = np.where(image.label_map == NO_CLASS, -1, image.label_map.astype(np.int16))
        colours = np.array(self.frame.classes.colours, np.uint8)
        file = io.BytesIO()
        Image.fromarray(blend(image.file.rgb, values, colours)).save(file, "JPEG", quality=85)
        return {f"overlays/{image.name}.jpg": file.getvalue()}
