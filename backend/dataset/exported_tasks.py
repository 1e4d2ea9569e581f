"""Read a file that Label Studio has exported as JSON, one task at a time.

The file is a list of tasks. Where each begins and ends is found without parsing, so that a task
that is broken costs itself alone, and a file of any size takes the memory of its largest tasks.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final
from xml.sax.saxutils import quoteattr

import msgspec

from backend.dataset.tasks import TaskRecord, TaskReference
from backend.errors import DatasetError
from backend.label_studio.image_loader import ImageName
from backend.label_studio.records import Annotation, decode_time
from backend.label_studio.requests import Task

_CHUNK_BYTES: Final = 1 << 20
_HEAD_BYTES: Final = 64  # of a file, and of a task: what comes first in it
_LONGEST_ADDRESS: Final = 4096

_BOM: Final = b"\xef\xbb\xbf"
_MARK: Final = re.compile(rb'["\\{}]')  # all that says where objects and texts begin and end
_ID_FIRST: Final = re.compile(rb'\{\s*"id"\s*:\s*(\d{1,18})\s*,')  # Label Studio writes it first

#: What a decoder raises for a task that is broken.
_BROKEN: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

#: Tools beside ``<Labels>``; and type of a region -> tag of the control that draws such.
_TOOLS: Final = ("Brush", "Bitmask", "Polygon", "Rectangle", "Ellipse")
_TAGS: Final = {
    "labels": "Labels",
    **{tool.lower(): tool for tool in _TOOLS},
    **{f"{tool.lower()}labels": f"{tool}Labels" for tool in _TOOLS},
}


def find_tasks(stream: BinaryIO) -> Iterator[tuple[int, int]]:
    """Find the objects of a JSON list: yield the first byte of each, and the byte behind it.

    What is inside of an object is not checked. A chunk of the stream is in memory at a time.

    Raises:
        DatasetError: the stream ends within an object: the file is cut off.

    >>> import io
    >>> text = b'[{"a": "}"}, {"b": {"c": NaN}}]'
    >>> [text[start:end] for start, end in find_tasks(io.BytesIO(text))]
    [b'{"a": "}"}', b'{"b": {"c": NaN}}']
    """
    start = depth = found = 0
    for place, is_opened in _find_braces(stream):
        if is_opened:
            start = start if depth else place
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                found += 1
                yield start, place + 1
    if depth:
        raise DatasetError(f"The file is cut off behind its task {found}: export it again.")


def _find_braces(stream: BinaryIO) -> Iterator[tuple[int, bool]]:
    """Yield the place in bytes of each brace outside of texts, and whether it opens an object."""
    offset = 0
    escaped = -1  # place of what stands behind a backslash
    is_in_text = False
    for chunk in iter(partial(stream.read, _CHUNK_BYTES), b""):
        for match in _MARK.finditer(chunk):
            place, mark = offset + match.start(), match[0]
            if place == escaped:
                continue
            if mark == b"\\":
                escaped = place + 1
            elif mark == b'"':
                is_in_text = not is_in_text
            elif not is_in_text:
                yield place, mark == b"{"
        offset += len(chunk)


class _Region(msgspec.Struct):
    from_name: str = ""
    to_name: str = ""
    type: str = ""
    value: dict[str, msgspec.Raw] = {}


class _Result(msgspec.Struct):
    result: list[_Region] = []


class _Task(msgspec.Struct):
    """What the labeling config is told by: masks are passed over.

    Predictions may be ids alone. Tasks that were made to be imported may have predictions only.
    """

    data: dict[str, Any]
    annotations: list[_Result] | msgspec.UnsetType = msgspec.UNSET
    predictions: list[_Result | int] = []
    id: int | None = None
    project: int | None = None

    def __post_init__(self) -> None:
        if self.annotations is msgspec.UNSET and not self.predictions:
            raise ValueError("a task lacks the field `annotations`")

    def results(self, with_predictions: bool) -> list[_Result]:
        """Return what counts: the annotations, else, if wanted, the predictions."""
        if self.annotations is not msgspec.UNSET and self.annotations:
            return self.annotations
        predictions = self.predictions if with_predictions else []
        return [each for each in predictions if isinstance(each, _Result)]


class _Place(msgspec.Struct, frozen=True):
    """Where a task stands in the file, in bytes."""

    start: int
    end: int
    id: int


class ExportedTasks:
    """The tasks of a file that *Export*, *JSON* has written, and what it says of their project.

    Args:
        path: the file. It is read once when this is made, and task by task after that.
        with_predictions: whether the last prediction counts in tasks without an annotation.

    Raises:
        DatasetError: it is no such file, is cut off, or has no tasks.
    """

    unread: Final = 0

    def __init__(self, path: Path, with_predictions: bool = False) -> None:
        self._path = path
        self._with_predictions = with_predictions
        self._places: list[_Place] = []
        self._first: _Task | None = None  # that is not broken
        self._problem = ""  # of the first one that is
        self._has_predictions = False  # whether a task has some
        self._labels: dict[tuple[str, str], set[str]] = defaultdict(set)  # of a tag and name
        self._images: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._uploads: dict[str, set[str]] = defaultdict(set)  # name before the upload -> stored

        self._index()
        assert self._first is not None, "_index has checked it"
        number = self._first.project
        self.name = f"project {number}" if number else str(path.resolve().parent)

    def count(self) -> int:
        """Return the number of tasks, broken ones included."""
        return len(self._places)

    def references(self) -> Iterator[TaskReference]:
        """Iterate over the tasks; those that are broken raise a `DatasetError` when read."""
        for place in self._places:
            yield TaskReference(place.id, partial(self._read, place))

    @property
    def originals(self) -> frozenset[str]:
        """Names of files before they were uploaded, where one upload alone has the name."""
        return frozenset(name for name, stored in self._uploads.items() if len(stored) == 1)

    def label_config(self) -> str:
        """Return a labeling config with what the annotations have: labels in alphabetical order.

        Raises:
            DatasetError: they have no region with an area, or it is open what the pictures are.
        """
        labels, images = self._labels, self._images
        if not any(labels.values()):
            told = "Its annotations have no brush, bitmask, polygon, rectangle or ellipse."
            if self._has_predictions and not self._with_predictions:
                told += " It has predictions: --with-predictions takes these."
            raise DatasetError(told)
        if not any(tag in _TOOLS for tag, _ in labels):  # <Labels> need one, whichever it was
            images = images | {("Brush", ""): set[str]().union(*images.values())}

        names = sorted(frozenset[str]().union(*images.values()))
        lines = [self._image(name, alone=len(names) == 1) for name in names]
        for (tag, name), to in sorted(images.items()):
            own = sorted(labels.get((tag, name), ()))
            inner = "".join(f"<Label value={quoteattr(each)}/>" for each in own)
            named = f"name={quoteattr(name)} toName={quoteattr(','.join(sorted(to)))}"
            lines.append(f"<{tag} {named}>{inner}</{tag}>")
        return f"<View>{''.join(lines)}</View>"

    def _index(self) -> None:
        """Read all tasks once, and remember their places and what the file says of its project."""
        try:
            if not self._path.is_file():
                raise DatasetError(f"{self._path} is no file.")
            with self._path.open("rb") as stream, self._path.open("rb") as again:
                if stream.read(_HEAD_BYTES).removeprefix(_BOM).lstrip()[:1] != b"[":
                    raise self._no_export("it is no list")
                stream.seek(0)
                for start, end in find_tasks(stream):
                    again.seek(start)
                    self._add(start, again.read(end - start))
        except OSError as error:
            told = f"{self._path} cannot be read: {error.strerror or error}."
            raise DatasetError(told) from None

        if not self._places:
            raise DatasetError(
                f"{self._path} has no tasks: an export has those that are annotated."
            )
        if self._first is None:
            raise self._no_export(self._problem)

    def _no_export(self, reason: str) -> DatasetError:
        return DatasetError(
            f"{self._path} is no list of tasks with their annotations: export the project again, "
            f"as JSON, not as JSON-MIN or another format ({reason})."
        )

    def _add(self, start: int, row: bytes) -> None:
        """Remember the place of a task, the labels of its regions and the names of its pictures."""
        id_ = len(self._places) + 1
        try:
            task = msgspec.json.decode(row, type=_Task)
            id_ = task.id or id_
            self._add_labels(task)
            self._add_names(task)
            self._first = self._first or task
        except _BROKEN as error:
            self._problem = self._problem or str(error)
            if match := _ID_FIRST.match(row):
                id_ = int(match[1])
        self._places.append(_Place(start, start + len(row), id_))

    def _add_labels(self, task: _Task) -> None:
        self._has_predictions |= bool(task.predictions)
        own = task.results(self._with_predictions)
        for region in (each for result in own for each in result.result):
            if tag := _TAGS.get(region.type):
                texts = msgspec.json.decode(region.value.get(region.type, b"[]"), type=list[str])
                self._labels[tag, region.from_name].update(texts)
                self._images[tag, region.from_name].add(region.to_name)

    def _add_names(self, task: _Task) -> None:
        for address in _texts(task.data.values()):
            name = ImageName.of(address[:_LONGEST_ADDRESS])
            if name is not None and name.uploaded_file:
                self._uploads[name.uploaded_file].add(name.file)

    def _read(self, place: _Place) -> TaskRecord:
        try:
            with self._path.open("rb") as stream:
                stream.seek(place.start)
                row = stream.read(place.end - place.start)
            return _record(msgspec.json.decode(row), place.id, self._with_predictions)
        except OSError as error:
            raise DatasetError(f"It cannot be read: {error.strerror or error}.") from None
        except (*_BROKEN, AttributeError, LookupError, TypeError) as error:
            raise DatasetError(
                f"It is broken: export the project again, as JSON ({error!s:.100})."
            ) from None

    def _image(self, name: str, *, alone: bool) -> str:
        """Return the tag of an image: its data have its name, or alone have an address."""
        data = self._first.data if self._first else {}
        addresses = [key for key, value in data.items() if _is_address(value)]
        if name in addresses:
            key = name
        elif alone and len(addresses) == 1:
            (key,) = addresses
        else:
            raise DatasetError(
                f'It is open which data of the tasks are the pictures of "{name}": '
                f"{', '.join(data)[:200]}. Give the project's labeling config by --config."
            )
        value = "valueList" if isinstance(data[key], list) else "value"
        return f"<Image name={quoteattr(name)} {value}={quoteattr(f'${key}')}/>"


def _texts(values: Iterable[Any]) -> Iterator[str]:
    """Iterate over the texts among the data of a task, and in its lists."""
    for value in values:
        items = value if isinstance(value, list) else [value]
        yield from (each for each in items if isinstance(each, str))


def _is_address(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, str) and (first[:10] == "data:image" or "/" in first or "." in first)


def _record(raw: dict[str, Any], id_: int, with_predictions: bool) -> TaskRecord:
    """Return a task as it was exported, with its annotations, or with its last prediction."""
    task = Task(id_, raw.get("project"), raw["data"])
    own = raw.get("annotations") or ()
    annotations = tuple(_annotation(each, id_) for each in own)
    if with_predictions and not annotations:
        return TaskRecord(task, prediction=_last_prediction(raw))

    began = (each.get("prediction") or {} for each in own)
    versions = {each["id"]: str(each["model_version"]) for each in began if "id" in each}
    return TaskRecord(task, annotations, versions)


def _last_prediction(raw: dict[str, Any]) -> tuple[str, Sequence[Any]] | None:
    """Return the version and the regions of a task's last prediction; None without one."""
    given = raw.get("predictions") or ()
    predictions = [each for each in given if isinstance(each, dict)]
    if given and not predictions:
        raise DatasetError(
            "The file has the ids of its predictions alone: take them from the project itself, by "
            "--project in place of --export."
        )
    if not predictions:
        return None
    last = predictions[-1]
    return str(last.get("model_version") or ""), last.get("result") or ()


def _annotation(raw: dict[str, Any], task: int) -> Annotation:
    whose = raw.get("completed_by")
    more = {"completed_by": whose.get("id") if isinstance(whose, dict) else whose}
    ids = {"task": task, "project": raw.get("project") or 0}
    return msgspec.convert(raw | more | ids, Annotation, dec_hook=decode_time)
