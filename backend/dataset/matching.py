"""Match the files of a data set to pictures of tasks, and its classes to labels."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product, takewhile
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from backend.dataset.mask_source import Limits, MaskSource, read_bytes
from backend.dataset.output_folder import IMAGES_FILE
from backend.errors import DataKeyError, DatasetError
from backend.label_studio.image_loader import ImageName, as_uploaded
from backend.label_studio.label_config import Control, ControlLabel, ImageTag, LabelConfig
from backend.label_studio.label_config_parser import words_of_name
from backend.label_studio.requests import Task

_DRAWN_BY: Final = "of the brushes, bitmasks, polygons and rectangles of the project"


@dataclass(frozen=True)
class Target:
    """Where the regions of a class go: a control, and the label as that control has it."""

    control: Control
    label: ControlLabel


@dataclass(frozen=True)
class ClassMapping:
    """Finds the label of each class: that of its name or alias, else the one of the same words."""

    config: LabelConfig
    #: Class -> label, as the caller wants it; an empty label leaves the class out.
    renamed: Mapping[str, str] = field(default_factory=dict)
    #: Names of those to draw with, the first that has the label; empty: any, masks before outlines
    #: before boxes.
    controls: Sequence[str] = ()

    def __post_init__(self) -> None:
        known = {each.name for each in (*self.config.controls, *self.config.boxes)}
        for name in self.controls:
            if name not in known:
                drawn = f'The labeling config has no control "{name}" that is drawn on a picture'
                raise DatasetError(f"{drawn}; it has {', '.join(sorted(known))}.")

    def target(self, name: str, tag: str) -> Target:
        """Return where the regions of a class go on the image of a tag."""
        wanted = self.renamed.get(name, name)
        targets = self._targets(tag)
        found = [each for each in targets if wanted in each.label.spellings]
        if not found:
            found = [each for each in targets if _sounds_as(wanted, each.label)]

        labels = {each.label.name for each in found}
        if len(labels) == 1:
            return found[0]
        if labels:
            told = f'The class "{name}" could be the labels {_quoted(sorted(labels))}'
            raise DatasetError(f'{told}: say which by --map "{name}=LABEL".')

        known = _quoted(sorted({each.label.name for each in targets}))
        raise DatasetError(
            f'The class "{wanted}" is no label {self._drawn_by()}, which have {known}: name one by '
            f'--map "{name}=LABEL", or leave the class out by --map "{name}=".'
        )

    def _targets(self, tag: str) -> list[Target]:
        controls = [each for each in self._controls() if tag in each.to_names]
        return [Target(control, label) for control in controls for label in control.labels]

    def _drawn_by(self) -> str:
        return f"of {' and '.join(self.controls)}" if self.controls else _DRAWN_BY

    def _controls(self) -> Sequence[Control]:
        all_ = (*self.config.controls, *self.config.boxes)
        chosen = [each for name in self.controls for each in all_ if each.name == name]
        return chosen if self.controls else all_


def _path_in(address: str) -> PurePosixPath:
    """Return the folders and the file that the address of a picture names; empty without any."""
    exported = ImageName.of(address)
    if exported is None:
        return PurePosixPath()
    return PurePosixPath(*exported.folders, exported.uploaded_file or exported.file)


def _list_few(tasks: Sequence[int]) -> str:
    """List the first numbers of some tasks."""
    shown = ", ".join(map(str, tasks[:_SHOWN]))
    return f"{shown}, ..." if len(tasks) > _SHOWN else shown


def _sounds_as(name: str, label: ControlLabel) -> bool:
    """Return whether a spelling of a label is a name, but for letter case and word breaks."""
    return _spoken(name) in map(_spoken, label.spellings)


def _spoken(text: str) -> str:
    return words_of_name(text).replace("-", " ").casefold()


def _quoted(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(f'"{name[:60]}"' for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "") or "none"


_PICTURES: Final = {
    ".avif",
    ".bmp",
    ".gif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".mpo",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
}
#: What Roboflow makes of a name: a.jpg is a_jpg.rf.0123abcd.jpg.
_ROBOFLOW: Final = re.compile(r"(.+)_(jpe?g|png|bmp|webp|tiff?)\.rf\.[0-9A-Za-z]+(?:\.\w+)?")
_LIMITS: Final = Limits(max_file_mb=256)
_SHOWN: Final = 3


@dataclass(frozen=True)
class ImagePlace:
    """One image of a task; `item_index` is None where the task has no list there."""

    task: Task
    tag: str
    source: str
    item_index: int | None = None

    @property
    def key(self) -> tuple[int, str, int]:
        return int(self.task.id or 0), self.tag, self.item_index or 0


def image_places(tasks: Iterable[Task], tags: Iterable[ImageTag]) -> Iterator[ImagePlace]:
    """Iterate over all images of tasks; where the data has no address for a tag, there is none."""
    for task, tag in product(tasks, tags):
        with suppress(DataKeyError):
            found = zip(tag.sources(task.data), tag.indices(task.data), strict=True)
            yield from (ImagePlace(task, tag.name, source, index) for source, index in found)


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

    Of several, the one in the folders of the same names is meant, else none. Where `addresses` has
    that of a picture, by its path without suffix, the one image of it is meant; else the name
    counts, else the name in the address, whose folders tell several of one name apart.
    """

    def __init__(
        self, places: Iterable[ImagePlace], addresses: Mapping[str, str] | None = None
    ) -> None:
        self._addresses = addresses or {}
        self._named: dict[str, list[tuple[ImageName, ImagePlace]]] = defaultdict(list)
        self._by_address: dict[str, list[ImagePlace]] = defaultdict(list)
        for place in places:
            if place.source[:5].lower() != "data:":
                self._by_address[place.source].append(place)
            name = ImageName.of(place.source)
            if name is not None:
                files = (name.file, name.uploaded_file or name.file)
                for file in {*files, *map(_stem, files), *map(_hyphenated, files)}:
                    self._named[file].append((name, place))

    def find(self, name: str, other_name: str = "") -> ImagePlace:
        """Find the image of a name, else of another, else that which Roboflow has made it of."""
        path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
        keys = (key for each in (str(path), path.name) for key in (each, _stem(each)))
        address = next(filter(None, map(self._addresses.get, keys)), "")
        at_address = self._by_address.get(address, ())
        if len(at_address) == 1:
            return at_address[0]

        origin = _path_in(address)
        roboflow = _ROBOFLOW.sub(r"\1.\2", path.name)
        names = [path.name, PurePosixPath(other_name).name, roboflow, origin.name]
        if roboflow != path.name:
            names.append(_hyphenated(roboflow))

        found = next(filter(None, map(self._candidates, names)), ())
        if not found:
            raise DatasetError("no task has a picture of that name")

        for each in (path, origin):
            if len(found) > 1:
                found = _same_folders(found, each.parts[:-1])

        if len(found) > 1:
            tasks = sorted({place.key[0] for _, place in found})
            raise DatasetError(f"{len(found)} pictures have that name, in tasks {_list_few(tasks)}")
        return found[0][1]

    def _candidates(self, file: str) -> Sequence[tuple[ImageName, ImagePlace]]:
        if found := self._named.get(file) or self._named.get(_stem(file)):
            return found
        uploaded = as_uploaded(file)
        found = self._named.get(uploaded) or self._named.get(_stem(uploaded)) or []
        return [each for each in found if each[0].uploaded_file]


def match_by_name(
    sources: Iterable[MaskSource],
    places: Iterable[ImagePlace],
    addresses: Mapping[str, str] | None = None,
) -> tuple[list[Matched], list[Unmatched]]:
    """Match masks to images by their names; several masks of one image do not match."""
    matcher = NameMatcher(places, addresses)
    found: list[Matched] = []
    unmatched: list[Unmatched] = []
    for source in sources:
        try:
            found.append(Matched(source, matcher.find(source.name, source.other_name)))
        except DatasetError as error:
            unmatched.append(Unmatched(source.where, str(error)))
    counts = Counter(each.place.key for each in found)
    unmatched += (
        Unmatched(each.source.where, f"{count} files of masks are for task {each.place.key[0]}")
        for each in found
        if (count := counts[each.place.key]) > 1
    )
    return [each for each in found if counts[each.place.key] == 1], unmatched


def _same_folders(
    found: Sequence[tuple[ImageName, ImagePlace]], folders: Sequence[str]
) -> list[tuple[ImageName, ImagePlace]]:
    inwards = [zip(reversed(name.folders), reversed(folders), strict=False) for name, _ in found]
    shared = [sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], each)) for each in inwards]
    return [each for each, count in zip(found, shared, strict=True) if count == max(shared)]


def _hyphenated(file: str) -> str:
    """Return what Roboflow (with hyphens) and uploads (with underscores) leave of a name."""
    return "/" + re.sub(r"[\W_]+", "-", _stem(file)).strip("-")


def _stem(file: str) -> str:
    suffix = PurePosixPath(file).suffix
    return file[: -len(suffix)] if suffix.lower() in _PICTURES else file


class _Exported(msgspec.Struct):
    image: str
    source: str


def read_image_addresses(path: Path) -> Mapping[str, str]:
    """Read where pictures of a data set came from, if it says so: path, no suffix -> address."""
    files = (folder / IMAGES_FILE for folder in (path, path.parent, path.parent.parent))
    file = next((each for each in files if each.is_file()), None)
    if file is None:
        return {}
    try:
        rows = msgspec.json.Decoder(_Exported).decode_lines(read_bytes(file, _LIMITS))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{file} is not that of a data set: {error}.") from None
    return {row.image.removesuffix(PurePosixPath(row.image).suffix): row.source for row in rows}
