"""Match the files of a data set to pictures of tasks, and its classes to labels."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from backend.dataset.mask_source import Limits, MaskSource, read_bytes
from backend.dataset.output_folder import PICTURES_FILE
from backend.errors import DatasetError
from backend.label_studio.image_loader import ImageName, ImagePlace, as_uploaded
from backend.label_studio.label_config import Control, ControlLabel, LabelConfig
from backend.label_studio.label_config_parser import words_of_name

_DRAWN_BY: Final = "of the brushes, bitmasks, polygons and rectangles of the project"


@dataclass(frozen=True)
class Target:
    """Where the regions of a class go: a control, and the label as that control has it."""

    control: Control
    label: ControlLabel


@dataclass(frozen=True)
class ClassMapping:
    """Finds the label of each class: that of its name or alias, else the one of the same words.

    Attributes:
        config: the project's.
        renamed: class -> label, as the caller wants it; an empty label leaves the class out.
        controls: names of the controls to draw with, the first of them that has the label; empty:
            any, masks before outlines before boxes.
    """

    config: LabelConfig
    renamed: Mapping[str, str] = field(default_factory=dict)
    controls: Sequence[str] = ()

    def __post_init__(self) -> None:
        known = {control.name for control in self._all_controls()}
        for name in self.controls:
            if name not in known:
                raise DatasetError(
                    f'The labeling config has no control "{name}" that is drawn on a picture; it '
                    f"has {', '.join(sorted(known))}."
                )

    def leaves_out(self, name: str) -> bool:
        return self.renamed.get(name) == ""

    def target(self, name: str, tag: str) -> Target:
        """Return where the regions of a class go on the image of a tag.

        Raises:
            DatasetError: no label of the image fits, or several do.
        """
        wanted = self.renamed.get(name, name)
        controls = [each for each in self._chosen_controls() if tag in each.to_names]
        targets = [Target(control, label) for control in controls for label in control.labels]
        exact = [each for each in targets if wanted in each.label.spellings]
        found = exact or [
            each for each in targets if _spoken(wanted) in map(_spoken, each.label.spellings)
        ]
        labels = {each.label.name for each in found}
        if len(labels) == 1:
            return found[0]
        if labels:
            raise DatasetError(
                f'The class "{name}" could be the labels {_quoted(sorted(labels))}: say which by '
                f'--map "{name}=LABEL".'
            )
        drawn_by = f"of {' and '.join(self.controls)}" if self.controls else _DRAWN_BY
        found_none = f'The class "{name}" is no label'
        if wanted != name:
            found_none = f'"{wanted}", which --map names for the class "{name}", is no label'
        raise DatasetError(
            f"{found_none} {drawn_by}, which have "
            f"{_quoted(sorted({each.label.name for each in targets}))}: name one by --map "
            f'"{name}=LABEL", or leave the class out by --map "{name}=".'
        )

    def _chosen_controls(self) -> Iterator[Control]:
        """Iterate over the controls to draw with, the preferred ones first."""
        if not self.controls:
            yield from self._all_controls()
        for name in self.controls:
            yield from (each for each in self._all_controls() if each.name == name)

    def _all_controls(self) -> tuple[Control, ...]:
        return (*self.config.controls, *self.config.boxes)


def _spoken(text: str) -> str:
    return words_of_name(text).replace("-", " ").casefold()


def _quoted(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(f'"{name[:60]}"' for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "") or "none"


_PICTURES: Final = {
    *(".avif", ".bmp", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pgm", ".png", ".ppm"),
    *(".tif", ".tiff", ".webp"),
}
#: What Roboflow makes of a name: a.jpg is a_jpg.rf.0123abcd.jpg.
_ROBOFLOW: Final = re.compile(r"(.+)_(jpe?g|png|bmp|webp|tiff?)\.rf\.[0-9A-Za-z]+(?:\.\w+)?")
_MAPPING_LIMITS: Final = Limits(max_file_mb=64)
_SHOWN: Final = 3


@dataclass(frozen=True)
class Matched:
    """Masks and the image that they are for."""

    source: MaskSource
    place: ImagePlace


class Unmatched(msgspec.Struct, frozen=True):
    """Masks that no image takes, and why not."""

    where: str = msgspec.field(name="file")
    reason: str


class NameMatcher:
    """Finds the one image whose file has a name, with or without suffix.

    Of several, those in the folders of the same names are meant; where several remain, none is
    taken.

    Args:
        places: all images of the project.
        addresses: name of a picture in the data set, without suffix -> the address that it was
            exported from. The one image of that address is meant; else the name counts, else the
            name in the address, whose folders tell several of one name apart.
    """

    def __init__(
        self, places: Iterable[ImagePlace], addresses: Mapping[str, str] | None = None
    ) -> None:
        self._addresses = addresses or {}
        self._by_file: dict[str, list[tuple[ImageName, ImagePlace]]] = defaultdict(list)
        self._by_stem: dict[str, list[tuple[ImageName, ImagePlace]]] = defaultdict(list)
        self._by_address: dict[str, list[ImagePlace]] = defaultdict(list)
        for place in places:
            if place.source[:5].lower() != "data:":
                self._by_address[place.source].append(place)
            name = ImageName.of(place.source)
            if name is None:
                continue
            for file in dict.fromkeys((name.file, name.uploaded_file or name.file)):
                self._by_file[file].append((name, place))
                self._by_stem[_stem(file)].append((name, place))

    def find(self, name: str, other_name: str = "") -> ImagePlace:
        """Find the image of a name, a path with slashes; else of another one.

        Where no image has either, it is the one whose name Roboflow has made the name of.

        Raises:
            DatasetError: none has it, or several have.
        """
        path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
        address = self._addresses.get(path.name) or self._addresses.get(_stem(path.name)) or ""
        at_address = self._by_address.get(address, ())
        if len(at_address) == 1:
            return at_address[0]
        found, origin = self._candidates(path), None
        if (exported := ImageName.of(address)) is not None:
            file = exported.uploaded_file or exported.file
            origin = PurePosixPath(*exported.folders, file)
        for other in (other_name, _ROBOFLOW.sub(r"\1.\2", path.name)):
            if not found and other and other != path.name:
                found = self._candidates(path.with_name(PurePosixPath(other).name or path.name))
        if not found and origin is not None:
            path = origin
            found = self._candidates(path)
        if not found:
            raise DatasetError("no task has a picture of that name")
        nearest = _same_folders(found, path.parts[:-1]) if len(found) > 1 else found
        if len(nearest) > 1 and origin is not None:
            nearest = _same_folders(nearest, origin.parts[:-1])
        if len(nearest) > 1:
            tasks = sorted({place.key[0] for _, place in nearest})
            shown = ", ".join(map(str, tasks[:_SHOWN])) + (", ..." if len(tasks) > _SHOWN else "")
            raise DatasetError(f"{len(nearest)} pictures have that name, in tasks {shown}")
        return nearest[0][1]

    def _candidates(self, path: PurePosixPath) -> Sequence[tuple[ImageName, ImagePlace]]:
        return self._named(path.name) or [
            each for each in self._named(as_uploaded(path.name)) if each[0].uploaded_file
        ]

    def _named(self, file: str) -> Sequence[tuple[ImageName, ImagePlace]]:
        found = self._by_file.get(file) or self._by_stem.get(file)
        if not found and _stem(file) != file:  # the picture of a COCO file was stored as another
            found = self._by_stem.get(_stem(file))
        return found or ()


def match_by_name(
    sources: Iterable[MaskSource],
    places: Iterable[ImagePlace],
    addresses: Mapping[str, str] | None = None,
) -> tuple[list[Matched], list[Unmatched]]:
    """Match masks to images by their names; several masks of one image do not match."""
    matcher = NameMatcher(places, addresses)
    return _match(sources, lambda source: matcher.find(source.name, source.other_name))


def match_by_table(
    sources: Iterable[MaskSource], places: Iterable[ImagePlace], table: Path
) -> tuple[list[Matched], list[Unmatched]]:
    """Match masks to images by a CSV file; several masks of one image do not match.

    Args:
        sources: the masks.
        places: all images of the project.
        table: CSV in UTF-8 with the columns ``file``, the path of the file of masks or of the
            picture, with or without suffix, and ``task``; where tasks have several images also
            ``image``, the name of the image tag, and ``index``, the index in a list.

    Raises:
        DatasetError: the file cannot be read, or a row is wrong.
    """
    rows = _read_table(table)
    stems = Counter(map(_stem, rows))
    by_stem = {_stem(name): row for name, row in rows.items() if stems[_stem(name)] == 1}
    by_task: dict[int, list[ImagePlace]] = defaultdict(list)
    for place in places:
        by_task[place.key[0]].append(place)

    def find(source: MaskSource) -> ImagePlace:
        row = rows.get(source.name) or rows.get(source.where) or by_stem.get(_stem(source.name))
        if row is None:
            raise DatasetError(f"{table} has no row for it")
        if row.task not in by_task:
            raise DatasetError(f"the project has no task {row.task}")
        found = [each for each in by_task[row.task] if row.means(each)]
        if len(found) != 1:
            advice = ': say which by the columns "image" and "index"' if found else ""
            raise DatasetError(f"task {row.task} has {len(found) or 'no'} such pictures{advice}")
        return found[0]

    return _match(sources, find)


def _match(
    sources: Iterable[MaskSource], find: Callable[[MaskSource], ImagePlace]
) -> tuple[list[Matched], list[Unmatched]]:
    """Return what has matched and what has not; all masks of an image that several are for."""
    found: list[Matched] = []
    unmatched: list[Unmatched] = []
    for source in sources:
        try:
            found.append(Matched(source, find(source)))
        except DatasetError as error:
            unmatched.append(Unmatched(source.where, str(error)))
    counts = Counter(each.place.key for each in found)
    unmatched += (
        Unmatched(each.source.where, f"{count} files of masks are for task {each.place.key[0]}")
        for each in found
        if (count := counts[each.place.key]) > 1
    )
    return [each for each in found if counts[each.place.key] == 1], unmatched


class _Row(msgspec.Struct):
    file: str
    task: int
    image: str = ""
    index: int | None = None

    def means(self, place: ImagePlace) -> bool:
        return self.image in ("", place.tag) and self.index in (None, place.item_index or 0)


def _read_table(path: Path) -> dict[str, _Row]:
    try:
        text = read_bytes(path, _MAPPING_LIMITS).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is no CSV file in UTF-8: {error}.") from None
    found: dict[str, _Row] = {}
    for number, row in enumerate(rows, 2):
        try:
            filled = {name: value for name, value in row.items() if name and value}
            read = msgspec.convert(filled, _Row, strict=False)
        except msgspec.ValidationError:
            raise DatasetError(
                f'Expected row {number} of {path} to have a "file" and the number of its "task", '
                "but got another."
            ) from None
        name = unicodedata.normalize("NFC", read.file).replace("\\", "/")
        if name in found:
            raise DatasetError(f'{path} has two rows for "{name[:200]}".')
        found[name] = read
    if not found:
        raise DatasetError(f'Expected {path} to have the columns "file" and "task" and a row.')
    return found


def _same_folders(
    found: Sequence[tuple[ImageName, ImagePlace]], folders: Sequence[str]
) -> list[tuple[ImageName, ImagePlace]]:
    """Return those that share the most of their innermost folders with a path."""
    inwards = [zip(reversed(name.folders), reversed(folders), strict=False) for name, _ in found]
    shared = [sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], each)) for each in inwards]
    return [each for each, count in zip(found, shared, strict=True) if count == max(shared)]


def _stem(file: str) -> str:
    """Return the name of a picture's file without its suffix; another name as it is.

    >>> _stem("a.v2.JPG"), _stem("a.v2")
    ('a.v2', 'a.v2')
    """
    suffix = PurePosixPath(file).suffix
    return file[: -len(suffix)] if suffix.lower() in _PICTURES else file


_LIMITS: Final = Limits(max_file_mb=256)


class _Exported(msgspec.Struct):
    image: str
    source: str


def read_picture_addresses(path: Path) -> Mapping[str, str]:
    """Read where the pictures of an exported data set came from: name without suffix -> address.

    Empty where the folder, or that of a file in it, has no `PICTURES_FILE`.

    Raises:
        DatasetError: the file cannot be read, is over the limit, or holds something else.
    """
    files = (folder / PICTURES_FILE for folder in (path, path.parent, path.parent.parent))
    file = next((each for each in files if each.is_file()), None)
    if file is None:
        return {}
    try:
        rows = msgspec.json.Decoder(_Exported).decode_lines(read_bytes(file, _LIMITS))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{file} is not that of a data set: {error}.") from None
    return {PurePosixPath(row.image).stem: row.source for row in rows}
