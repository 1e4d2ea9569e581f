"""The tasks of a project with their annotations, of a running Label Studio or a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import ijson
import msgspec

from backend.errors import DatasetError
from backend.label_studio.client import PAGE, LabelStudioClient
from backend.label_studio.records import (
    Annotation,
    AnnotationRow,
    TaskRow,
    read_annotation,
)
from backend.label_studio.requests import Task


class TaskPrediction(msgspec.Struct):
    """A prediction of a task; its id is 0 where a file does not say."""

    id: int = 0
    model_version: str | None = None
    result: Any = None

    @property
    def version(self) -> str:
        """The ``model_version``; empty where it has none."""
        return self.model_version or ""

    @property
    def regions(self) -> Sequence[Any]:
        """The regions, as they came."""
        return self.result if isinstance(self.result, list) else ()


@dataclass(frozen=True)
class TaskRecord:
    """A task with what people and models have said about it.

    Attributes:
        annotations: all of them, skipped ones included.
        predictions: the oldest first; none where nobody has asked for them.
    """

    task: Task
    annotations: tuple[Annotation, ...] = ()
    predictions: tuple[TaskPrediction, ...] = ()

    def version_of(self, prediction: int | None) -> str:
        """Return the ``model_version`` of one of its predictions; empty where it is gone."""
        return next((each.version for each in self.predictions if each.id == prediction), "")


@dataclass(frozen=True)
class TaskReference:
    """A task by its id, to be read in a thread."""

    id: int
    read: Callable[[], TaskRecord] = field(repr=False, compare=False)


#: Threads that wait for Label Studio, and what is read ahead: they bound the memory.
READERS: Final = 4
READ_AHEAD: Final = 8


class TaskSource(Protocol):
    """Lists the tasks of a project."""

    @property
    def name(self) -> str:
        """Name of the project or the file, by which a folder knows what it was made of."""

    def count(self) -> int | None:
        """Return the number of tasks; None where nobody knows before all are read."""

    def references(self) -> Iterator[TaskReference]:
        """Iterate over the tasks by ascending id, or in the order of a file."""


@dataclass(frozen=True, eq=False)
class ProjectTasks:
    """The tasks of a project of a running Label Studio, or those of a view of the data manager.

    With `with_predictions`, untouched predictions are read as well.
    """

    _client: LabelStudioClient
    _project: int
    _view: int | None = None
    _with_predictions: bool = False

    @property
    def name(self) -> str:
        """Address of the project."""
        return f"{self._client.url}/projects/{self._project}"

    def count(self) -> int | None:
        """Return the number of tasks; None with a view, of which all ids are listed first."""
        return None if self._view is not None else self._client.newest_change(self._project)[1]

    def references(self) -> Iterator[TaskReference]:
        """Iterate over the tasks, page by page."""
        among: set[int] | None = None
        if self._view is not None:
            among = set(self._client.view_ids(self._project, self._view))
        after = 0
        while True:
            found = self._client.changed_tasks(self._project, 0.0, after)
            for task in found:
                if among is None or task.id in among:
                    yield TaskReference(task.id, partial(self._read, task))
            if len(found) < PAGE:
                return
            after = found[-1].id

    def _read(self, found: TaskRow) -> TaskRecord:
        task = Task(found.id, self._project, found.data)
        annotations = self._client.annotations(found.id) if found.annotations else []
        began = any(each.prediction is not None for each in annotations)
        predictions: tuple[TaskPrediction, ...] = ()
        counts = self._with_predictions and not annotations
        if found.total_predictions and (began or counts):
            predictions = self._predictions(found.id, with_newest=counts)
        return TaskRecord(task, tuple(annotations), predictions)

    def _predictions(self, task: int, with_newest: bool) -> tuple[TaskPrediction, ...]:
        """Read the predictions of a task, with the regions of the newest one or of none.

        There are none where the newest one, whose regions are wanted, has been deleted meanwhile:
        without regions it would count as an empty picture.
        """
        stored = self._client.stored(task)
        found = [TaskPrediction(each.id, each.version) for each in stored]
        if found and with_newest:
            newest = self._client.prediction(found[-1].id)
            if newest is None:
                return ()
            found[-1].result = newest.result
        return tuple(found)


@dataclass(frozen=True)
class ExportedTasks:
    """The tasks of a file that Label Studio has exported as JSON; it is read as a stream."""

    _file: Path

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"export:{self._file.name}"

    def count(self) -> int | None:
        """Return None: the file is read once."""
        return None

    def references(self) -> Iterator[TaskReference]:
        """Iterate over the tasks.

        Raises:
            DatasetError: the file cannot be read, is no list of tasks, or is cut off.
        """
        try:
            with self._file.open("rb") as stream:
                if stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"[":
                    raise DatasetError(
                        f"Expected {self._file} to be a list of tasks, as Label Studio exports "
                        "with JSON, but it is something else."
                    )
                stream.seek(0)
                for raw in ijson.items(stream, "item", use_float=True):
                    record = read_exported_task(raw)
                    yield TaskReference(int(record.task.id or 0), partial(_same, record))
        except (ijson.JSONError, UnicodeDecodeError):
            raise DatasetError(f"{self._file} is no JSON, or cut off.") from None
        except OSError as error:
            raise DatasetError(f"{self._file} cannot be read: {error.strerror}.") from None


def _same(record: TaskRecord) -> TaskRecord:
    return record


class _ExportedTask(msgspec.Struct):
    """An exported task; some exports have only the ids of predictions."""

    id: int
    data: dict[str, Any]
    annotations: list[dict[str, Any]]
    predictions: list[dict[str, Any] | int] | None = None


def read_exported_task(raw: Any) -> TaskRecord:
    """Read a task of a file that Label Studio has exported as JSON.

    Raises:
        DatasetError: it is something else.
    """
    try:
        found = msgspec.convert(raw, _ExportedTask)
        annotations = tuple(map(_annotation, found.annotations))
        told = [each for each in found.predictions or () if isinstance(each, dict)]
        began = [each.get("prediction") for each in found.annotations]
        told += [each for each in began if isinstance(each, dict) and each.get("id")]
        rows = [msgspec.convert(each, TaskPrediction) for each in told]
    except msgspec.ValidationError as error:
        raise DatasetError(
            f'Expected each exported task to have "id", "data" and "annotations" as in Label '
            f"Studio's export JSON (JSON-MIN has no masks of use), but one has not: {error}."
        ) from None
    by_id = {(each.id or -n): each for n, each in enumerate(rows)}
    predictions = tuple(sorted(by_id.values(), key=lambda each: each.id))
    return TaskRecord(Task(found.id, None, found.data), annotations, predictions)


def _annotation(raw: Mapping[str, Any]) -> Annotation:
    person, began = raw.get("completed_by"), raw.get("prediction")
    row = {"id": 0, "task": None, "project": None, **raw}
    if isinstance(person, dict):
        row["completed_by"] = person.get("id")
    if isinstance(began, dict) and raw.get("parent_prediction") is None:
        row["parent_prediction"] = began.get("id")
    return read_annotation(msgspec.convert(row, AnnotationRow))
