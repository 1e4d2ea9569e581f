"""Read COCO files: polygons, run lengths as numbers, and compressed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backend.dataset.labelled_image import BoolMask, LabelledRegion
from backend.dataset.mask_source import Limits, MaskSource, check_pixels, check_size, read_score
from backend.dataset.readers.coco_json import read_objects
from backend.dataset.readers.coco_rle import draw_runs, read_runs
from backend.dataset.readers.outlines import fill_centres
from backend.errors import DatasetError
from clearclip_core.quantities import quantity

#: Files of a data set's folder that are no COCO files.
_OTHERS: Final = ("classes.json", "report.json")
_LISTS: Final = ("images", "categories", "annotations")


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


@dataclass
class _File:
    """What a COCO file holds."""

    names: dict[int, str] = field(default_factory=dict)
    images: dict[Any, tuple[str, tuple[int, int] | None]] = field(default_factory=dict)
    objects: dict[Any, list[_Object]] = field(default_factory=dict)


def find_coco_files(path: Path) -> list[Path]:
    """Find the COCO files of a data set: a file, or those of its folder ``annotations``.

    Without that folder they are the JSON files of the folder itself.
    """
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    below = sorted((path / "annotations").glob("*.json"))
    return below or sorted(each for each in path.glob("*.json") if each.name not in _OTHERS)


def read_coco(path: Path, limits: Limits) -> Iterator[MaskSource]:
    """Iterate over the images of COCO files, those without an annotation included.

    A file may list no image, as that of an empty part of a split does.

    Args:
        path: a file, or a folder; see `find_coco_files`.
        limits: of each mask.

    Raises:
        DatasetError: there is no file, one is broken, or none lists an image.
    """
    files = find_coco_files(path)
    if not files:
        raise DatasetError(f"Expected a COCO file at {path}, but there is none.")
    has_images = False
    for file in files:
        content = _read(file)
        has_images |= bool(content.images)
        for id_, (name, size_hw) in content.images.items():
            yield _source(file, name, size_hw, content.objects.get(id_, []), content.names, limits)
    if not has_images:
        raise DatasetError(f"Expected a COCO file at {path} to list images, but it has 0 images.")


def _source(
    file: Path,
    name: str,
    size_hw: tuple[int, int] | None,
    objects: Sequence[_Object],
    names: Mapping[int, str],
    limits: Limits,
) -> MaskSource:
    def read_regions(picture_hw: tuple[int, int]) -> Sequence[LabelledRegion]:
        check_pixels(name, picture_hw, limits)
        check_size(name, size_hw or picture_hw, picture_hw)
        return [
            LabelledRegion(
                names[each.category],
                lambda each=each: _draw(each, name, picture_hw),  # type: ignore[misc]
                each.score,
            )
            for each in objects
        ]

    return MaskSource(name, name, read_regions)


def _draw(found: _Object, name: str, size_hw: tuple[int, int]) -> BoolMask:
    try:
        if isinstance(found.shape, str):
            raise ValueError(found.shape)
        return found.shape.draw(size_hw)
    except ValueError as error:
        raise DatasetError(f"{name}: the annotation {found.id} is broken, {error}.") from None


def _read(path: Path) -> _File:
    content = _File()
    missing: dict[int, Any] = {}
    for key, entry in read_objects(path, _LISTS):
        try:
            if key == "images":
                _read_image(entry, content)
            elif key == "categories":
                content.names[_id(entry["id"])] = _text(entry["name"])
            else:
                found = _read_object(entry)
                content.objects.setdefault(entry["image_id"], []).append(found)
                missing.setdefault(found.category, found.id)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f'{path} has an entry of "{key}" that is broken ({str(error)[:100]}); its id is '
                f"{str(entry.get('id'))[:50]}."
            ) from None
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
    sides = entry.get("height"), entry.get("width")
    size_hw = (_id(sides[0]), _id(sides[1])) if sides != (None, None) else None
    content.images[id_] = _text(entry["file_name"]), size_hw


def _read_object(entry: Mapping[str, Any]) -> _Object:
    return _Object(
        entry.get("id"),
        _id(entry["category_id"]),
        _read_shape(entry.get("segmentation")),
        read_score(entry.get("score")),
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
    if not found:
        return "it has no mask, only a box"
    try:
        with np.errstate(over="ignore"):  # infinity is refused when it is drawn
            parts = tuple(np.array(part, np.float32).reshape(-1, 2) for part in found)
    except (OverflowError, TypeError, ValueError):
        return "its polygons are no pairs of numbers"
    return _Outlines(parts)


def _id(given: Any) -> int:
    if type(given) is not int:
        raise ValueError("a number is missing")
    return given


def _text(given: Any) -> str:
    if not isinstance(given, str) or not given.strip():
        raise ValueError("a name is missing")
    return given
