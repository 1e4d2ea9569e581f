"""Read COCO files, lists of results in COCO's format, and the masks of Segment Anything.

Masks are polygons, run lengths as numbers, or compressed ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import ijson
import numpy as np
import numpy.typing as npt
from ijson.common import ObjectBuilder

from backend.dataset.labelled_image import BoolMask, LabelledRegion
from backend.dataset.mask_source import (
    DegenerateRegionError,
    Limits,
    MaskSource,
    check_pixels,
    check_size,
    read_score,
)
from backend.dataset.readers.outlines import fill_centres
from backend.errors import DatasetError
from clearclip_core.quantities import quantity

#: Largest file, in bytes.
_MAX_BYTES: Final = 4 << 30
#: Key of the one picture of a file of Segment Anything.
_IMAGE: Final = "image"
#: Values of one object: points of its outlines, or runs.
_MAX_VALUES: Final = 4_000_000
#: Levels of lists and objects within an object of a list.
_MAX_DEPTH: Final = 8

_OPENING: Final = ("start_map", "start_array")
_CLOSING: Final = ("end_map", "end_array")


def read_objects(path: Path, keys: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over the objects in lists at the top of a JSON file, in the order of the file.

    Of a file that is a list, they are its objects, with an empty key. An object with the key of
    `_IMAGE` at the top is one too.

    Args:
        path: the file.
        keys: keys of the lists that are read.

    Yields:
        The key of the list, and the object.

    Raises:
        DatasetError: it is no JSON or cut off, too large, or an object of it is.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DatasetError(f"{path} is over the limit of {_MAX_BYTES >> 20} MB.")
        with path.open("rb") as file:
            yield from _objects(ijson.basic_parse(file, use_float=True), keys, path)
    except (ijson.JSONError, UnicodeDecodeError, OverflowError):
        raise DatasetError(f"{path} is no JSON file, or is damaged or cut off.") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from None


def _objects(
    events: Iterator[tuple[str, Any]], keys: Collection[str], path: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    depth, values, key, is_list = 0, 0, "", False
    builder: ObjectBuilder | None = None
    begun = 0
    for event, value in events:
        if event == "map_key" and depth == 1:
            key = value
            continue
        if depth == 0:
            is_list = event == "start_array"
        is_wanted = depth == 1 + (not is_list) and (is_list or key in keys)
        is_wanted |= depth == 1 and not is_list and key == _IMAGE
        if builder is None and event == "start_map" and is_wanted:
            builder, values, begun = ObjectBuilder(), 0, depth
        depth += (event in _OPENING) - (event in _CLOSING)
        if builder is None:
            continue
        builder.event(event, value)
        values += 1
        if values > _MAX_VALUES or depth > _MAX_DEPTH:
            raise DatasetError(
                f'An object of "{key}" in {path} has more than {_MAX_VALUES} values or '
                f"{_MAX_DEPTH} levels."
            )
        if depth == begun:
            yield key, builder.value
            builder = None


Runs = npt.NDArray[np.int64]

#: Groups of five bits of one run; a mask of 2^30 pixels needs seven.
_MOST_GROUPS: Final = 7


def read_runs(counts: str | bytes | Sequence[Any]) -> Runs:
    """Read the runs of a mask, compressed or as a list of numbers.

    Returns:
        (N,) int64, none of them negative.

    Raises:
        ValueError: they are no runs.

    >>> read_runs("52203").tolist(), read_runs([5, 2, 2, 2]).tolist()
    ([5, 2, 2, 2, 5], [5, 2, 2, 2])
    """
    if isinstance(counts, str):
        counts = counts.encode()
    runs = _decompress(counts) if isinstance(counts, bytes) else _read_list(counts)
    if (runs < 0).any():
        raise ValueError("a run of it is negative")
    return runs


def draw_runs(runs: Runs, size_hw: tuple[int, int]) -> BoolMask:
    """Draw a mask of runs, (H, W) bool.

    Raises:
        ValueError: the runs have another number of pixels.

    >>> draw_runs(np.array([1, 2, 1]), (2, 2))
    array([[False,  True],
           [ True, False]])
    """
    height, width = size_hw
    total = int(runs.sum())  # 2^35 a run at most: no overflow
    if total != height * width:
        raise ValueError(f"its runs have {total} pixels, but it is {width}×{height} px")
    values = np.arange(runs.size) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def _read_list(counts: Sequence[Any]) -> Runs:
    if not all(type(each) is int and each < 1 << 31 for each in counts):
        raise ValueError("its runs are no whole numbers")
    return np.array(counts, dtype=np.int64)


def _decompress(text: bytes) -> Runs:
    groups = np.frombuffer(text, np.uint8).astype(np.int64) - ord("0")
    if ((groups < 0) | (groups > 63)).any() or (groups.size and groups[-1] & 0x20):
        raise ValueError("its compressed runs are damaged or cut off")
    if not groups.size:
        return groups
    ends = np.flatnonzero(groups & 0x20 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > _MOST_GROUPS:
        raise ValueError("a run of it is longer than any mask")
    places = np.arange(groups.size) - np.repeat(starts, sizes)
    numbers = np.add.reduceat((groups & 0x1F) << 5 * places, starts)
    numbers -= np.where(groups[ends] & 0x10, 1 << 5 * sizes, 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


#: Files of a data set's folder that are no COCO files.
_OTHERS: Final = ("classes.json", "report.json")
_LISTS: Final = ("images", "categories", "annotations")
#: Of a polygon; those with fewer have no area.
_MIN_POINTS: Final = 3
#: Class of masks that have none, as those of Segment Anything.
_UNNAMED: Final = "object"


@dataclass(frozen=True)
class _Runs:
    """A mask of run lengths: the text or the numbers, packed."""

    size_hw: tuple[int, int]
    counts: bytes | npt.NDArray[np.int64]

    def draw(self, size_hw: tuple[int, int]) -> BoolMask:
        if self.size_hw != size_hw:
            raise ValueError(f"its mask is {self.size_hw[1]}×{self.size_hw[0]} px")
        runs = read_runs(self.counts) if isinstance(self.counts, bytes) else self.counts
        return draw_runs(runs, size_hw)


@dataclass(frozen=True)
class _Outlines:
    """A mask of polygons: (P, 2) float32 each, x and y in px."""

    parts: tuple[npt.NDArray[np.float32], ...]

    def draw(self, size_hw: tuple[int, int]) -> BoolMask:
        return fill_centres(self.parts, size_hw)


@dataclass(frozen=True)
class _Object:
    """One annotation: its number, its category, its mask or why it has none, and its score."""

    id: Any
    category: int
    shape: _Runs | _Outlines | str
    score: float | None


@dataclass(frozen=True)
class _Image:
    """A picture: its name, its size where it is said, and its name before Roboflow renamed it."""

    name: str
    size_hw: tuple[int, int] | None = None
    other_name: str = ""


@dataclass
class _File:
    """What a COCO file holds."""

    names: dict[int, str] = field(default_factory=dict)
    images: dict[Any, _Image] = field(default_factory=dict)
    objects: dict[Any, list[_Object]] = field(default_factory=dict)


def find_coco_files(path: Path) -> list[Path]:
    """Find the COCO files of a data set: a file, or those of its folder ``annotations``.

    Without that folder they are the JSON files of the folder itself.
    """
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    below = sorted((path / "annotations").glob("*.json"))
    return below or sorted(each for each in path.glob("*.json") if each.name not in _OTHERS)


def read_coco(path: Path, names: Path | None, limits: Limits) -> Iterator[MaskSource]:
    """Iterate over the images of COCO files, those without an annotation included.

    A file may list no image, as that of an empty part of a split does. Of a list of results, the
    images that have some are read. Masks of Segment Anything, which have no class, are of the class
    "object".

    Args:
        path: a file, or a folder; see `find_coco_files`.
        names: the COCO file that lists the images and categories of results; None: there is none.
        limits: of each mask.

    Raises:
        DatasetError: there is no file, one is broken, or none lists an image.
    """
    files = [each for each in find_coco_files(path) if names is None or not names.samefile(each)]
    if not files:
        raise DatasetError(f"Expected a COCO file at {path}, but there is none.")
    listed = _read(names, _File()) if names is not None else _File()
    has_images = False
    for file in files:
        content = _read(file, listed)
        has_images |= bool(content.images)
        for id_, image in content.images.items():
            yield _source(image, content.objects.get(id_, []), content.names, limits)
    if not has_images:
        raise DatasetError(f"Expected a COCO file at {path} to list images, but it has 0 images.")


def _source(
    image: _Image, objects: Sequence[_Object], names: Mapping[int, str], limits: Limits
) -> MaskSource:
    name = image.name

    def read_regions(picture_hw: tuple[int, int]) -> Sequence[LabelledRegion]:
        check_pixels(name, picture_hw, limits)
        check_size(name, image.size_hw or picture_hw, picture_hw)
        return [
            LabelledRegion(
                names[each.category],
                lambda each=each: _draw(each, name, picture_hw),  # type: ignore[misc]
                each.score,
            )
            for each in objects
        ]

    return MaskSource(name, name, read_regions, image.other_name, has_objects=True)


def _draw(found: _Object, name: str, size_hw: tuple[int, int]) -> BoolMask:
    try:
        if isinstance(found.shape, str):
            raise ValueError(found.shape)
        mask = found.shape.draw(size_hw)
    except ValueError as error:
        raise DatasetError(f"{name}: the annotation {found.id} is broken, {error}.") from None
    if not mask.any():
        reason = "it has no mask, only a box" if _is_box(found.shape) else "it has no area"
        raise DegenerateRegionError(f"the annotation {found.id} is left out: {reason}")
    return mask


def _is_box(shape: _Runs | _Outlines) -> bool:
    return isinstance(shape, _Outlines) and not shape.parts


def _read(path: Path, listed: _File) -> _File:
    """Read a file; that of results says nothing of images and categories but their ids."""
    content = _File()
    missing: dict[int, Any] = {}
    is_list = False
    for key, entry in read_objects(path, _LISTS):
        try:
            if key == "images":
                _read_image(entry, content)
            elif key == "categories":
                content.names[_id(entry["id"])] = _text(entry["name"])
            elif key == _IMAGE:
                content.images[_IMAGE] = _read_named(entry)
            else:
                is_list |= not key
                found = _read_object(entry)
                content.objects.setdefault(entry.get("image_id", _IMAGE), []).append(found)
                missing.setdefault(found.category, found.id)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f'{path} has an entry of "{key}" that is broken ({str(error)[:100]}); its id is '
                f"{str(entry.get('id'))[:50]}."
            ) from None
    if content.objects.keys() == {_IMAGE}:  # of Segment Anything
        content.names.setdefault(0, _UNNAMED)
        content.images.setdefault(_IMAGE, _Image(path.stem))
    elif is_list:
        if not listed.images:
            raise DatasetError(
                f"{path} is a list of results, which does not say the names of pictures: name the "
                "COCO file that does by --names."
            )
        content.names = listed.names
        content.images = {k: v for k, v in listed.images.items() if k in content.objects}
    if not content.names or (content.objects and not content.images):
        raise DatasetError(
            f'Expected {path} to be a COCO file with "images", "categories" and "annotations", but '
            f"it has {quantity(len(content.images), 'image')} and "
            f"{quantity(len(content.names), 'category', 'categories')}."
        )
    for category, id_ in missing.items():
        if category not in content.names:
            raise DatasetError(
                f"{path} has no category {category}, which the annotation {id_} is of."
            )
    strays = [each for image, each in content.objects.items() if image not in content.images]
    if strays:
        raise DatasetError(
            f"{path} has annotations of {quantity(len(strays), 'image')} that it does not list, "
            f"such as the annotation {strays[0][0].id}."
        )
    return content


def _read_image(entry: Mapping[str, Any], content: _File) -> None:
    id_ = entry["id"]
    if not isinstance(id_, int | str) or id_ in content.images:
        raise ValueError("its id is no number, or there twice")
    content.images[id_] = _read_named(entry)


def _read_named(entry: Mapping[str, Any]) -> _Image:
    sides = entry.get("height"), entry.get("width")
    size_hw = (_id(sides[0]), _id(sides[1])) if sides != (None, None) else None
    extra = entry.get("extra")
    other = extra.get("name") if isinstance(extra, dict) else None
    return _Image(_text(entry["file_name"]), size_hw, other if isinstance(other, str) else "")


def _read_object(entry: Mapping[str, Any]) -> _Object:
    is_unnamed = "image_id" not in entry and "category_id" not in entry
    return _Object(
        entry.get("id"),
        0 if is_unnamed else _id(entry["category_id"]),
        _read_shape(entry.get("segmentation")),
        read_score(entry.get("score", entry.get("predicted_iou"))),
    )


def _read_shape(found: Any) -> _Runs | _Outlines | str:
    """Read a mask, in the packed form in which it waits; a reason where it is none."""
    if isinstance(found, dict):
        size, counts = found.get("size"), found.get("counts")
        if not isinstance(size, list) or len(size) != 2 or not all(type(n) is int for n in size):
            return "its mask has no size"
        if isinstance(counts, str):
            return _Runs((size[0], size[1]), counts.encode())
        try:
            return _Runs((size[0], size[1]), read_runs(counts or ()))
        except (TypeError, ValueError) as error:
            return str(error)
    try:
        with np.errstate(over="ignore"):  # infinity is refused when it is drawn
            parts = tuple(np.array(part, np.float32).reshape(-1, 2) for part in found or ())
    except (OverflowError, TypeError, ValueError):
        return "its polygons are no pairs of numbers"
    return _Outlines(tuple(part for part in parts if len(part) >= _MIN_POINTS))


def _id(given: Any) -> int:
    if type(given) is not int:
        raise ValueError("a number is missing")
    return given


def _text(given: Any) -> str:
    if not isinstance(given, str) or not given.strip():
        raise ValueError("a name is missing")
    return given
