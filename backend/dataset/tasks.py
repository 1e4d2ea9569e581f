"""The tasks of a project with their annotations, of a running Label Studio or a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import ijson

from backend.errors import DatasetError
from backend.label_studio.client import PAGE, LabelStudioClient
from backend.label_studio.records import Annotation, TaskRow
from backend.label_studio.requests import Task, read_number, read_text

_LARGEST_ID: Final = (1 << 63) - 1


@dataclass(frozen=True)
class TaskPrediction:
    """A prediction of a task with its regions.

    Attributes:
        id: its own; 0 where an exported file does not say.
        version: its ``model_version``.
        result: its regions, as they came; none where nobody has asked for them.
    """

    id: int
    version: str
    result: Sequence[Any] = field(default=(), repr=False)


@dataclass(frozen=True)
class TaskRecord:
    """A task with what people and models have said about it.

    Attributes:
        task: the task.
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
    """A task that is there, and how to read it.

    Attributes:
        id: its id.
        read: reads it; None where it is gone by then.
    """

    id: int
    read: Callable[[], TaskRecord | None] = field(repr=False, compare=False)


def read_exported_task(raw: Any, project: int | None = None) -> TaskRecord:
    """Read a task of a file that Label Studio has exported as JSON.

    Raises:
        DatasetError: it is no object with an id and data, or its annotations are no list.
    """
    if not isinstance(raw, dict) or _id(raw.get("id")) is None:
        raise DatasetError('Expected each exported task to have an "id", but one has none.')
    id_, data = raw["id"], raw.get("data")
    annotations, predictions = raw.get("annotations", []), raw.get("predictions") or []
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise DatasetError(
            f'Expected the exported task {id_} to have "data" and "annotations" as in Label '
            "Studio's export JSON, but it has not: JSON-MIN has no masks of use."
        )
    task = Task(id_, project, data)
    given = predictions if isinstance(predictions, list) else []
    found = [_prediction(each) for each in given if isinstance(each, dict)]
    began = [each.get("prediction") for each in annotations if isinstance(each, dict)]
    found += [_prediction(each) for each in began if isinstance(each, dict) and each.get("id")]
    known = {each.id: each for each in found if each.id}
    unknown = [each for each in found if not each.id]
    return TaskRecord(
        task,
        tuple(_annotation(each, id_) for each in annotations if isinstance(each, dict)),
        (*unknown, *sorted(known.values(), key=lambda each: each.id)),
    )


def _prediction(raw: Mapping[str, Any]) -> TaskPrediction:
    result = raw.get("result")
    return TaskPrediction(
        id=_id(raw.get("id")) or 0,
        version=read_text(raw, "model_version"),
        result=result if isinstance(result, list) else (),
    )


def _annotation(raw: Mapping[str, Any], task: int) -> Annotation:
    person = raw.get("completed_by")
    person = person.get("id") if isinstance(person, dict) else person
    began = raw.get("prediction")
    prediction = raw.get("parent_prediction")
    if prediction is None and isinstance(began, dict):
        prediction = began.get("id")
    result = raw.get("result")
    return Annotation(
        id=_id(raw.get("id")) or 0,
        task=task,
        project=_id(raw.get("project")) or 0,
        result=result if isinstance(result, list) else (),
        prediction=_id(prediction),
        skipped=raw.get("was_cancelled") is True,
        seconds=read_number(raw.get("lead_time")),
        annotator=_id(person),
        created=_seconds(raw.get("created_at")),
        updated=_seconds(raw.get("updated_at")),
        ground_truth=raw.get("ground_truth") is True,
    )


def _id(value: Any) -> int | None:
    """Return an id that a database can hold; None for another value."""
    return value if type(value) is int and 0 <= value <= _LARGEST_ID else None


def _seconds(text: Any) -> float:
    """Return a time in seconds since the epoch; 0.0 where it is none."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return 0.0


class TaskSource(Protocol):
    """Lists the tasks of a project."""

    @property
    def name(self) -> str:
        """Name of the project or the file, by which a folder knows what it was made of."""
        ...

    def count(self) -> int | None:
        """Return the number of tasks; None where nobody knows before all are read."""
        ...

    def references(self) -> Iterator[TaskReference]:
        """Iterate over the tasks by ascending id, or in the order of a file."""
        ...


class ProjectTasks:
    """The tasks of a project of a running Label Studio.

    Args:
        client: Label Studio.
        project: its id.
        view: id of a view of the data manager, whose tasks are listed; None for all.
        with_predictions: whether untouched predictions are read as well.
    """

    def __init__(
        self,
        client: LabelStudioClient,
        project: int,
        view: int | None = None,
        with_predictions: bool = False,
    ) -> None:
        self._client = client
        self._project = project
        self._view = view
        self._with_predictions = with_predictions

    @property
    def name(self) -> str:
        """Address of the project."""
        return f"{self._client.url}/projects/{self._project}"

    def count(self) -> int | None:
        """Return the number of tasks; None with a view, of which all ids are listed first.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        return None if self._view is not None else self._client.newest_change(self._project)[1]

    def references(self) -> Iterator[TaskReference]:
        """Iterate over the tasks, page by page.

        Raises:
            StudioRefused: there is no such project or view for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        among = self._among()
        after = 0
        while True:
            found = self._client.changed_tasks(self._project, 0.0, after)
            for task in found:
                if among is None or task.id in among:
                    yield TaskReference(task.id, partial(self._read, task))
            if len(found) < PAGE:
                return
            after = found[-1].id

    def _among(self) -> set[int] | None:
        if self._view is None:
            return None
        return set(self._client.view_ids(self._project, self._view))

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
            found[-1] = replace(found[-1], result=newest.result)
        return tuple(found)


class ExportedTasks:
    """The tasks of a file that Label Studio has exported as JSON; it is read as a stream.

    Args:
        file: the file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

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
        seen: set[int] = set()
        try:
            with self._file.open("rb") as stream:
                start = stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
                stream.seek(0)
                if start != b"[":
                    raise DatasetError(
                        f"Expected {self._file} to be a list of tasks, as Label Studio exports "
                        "with JSON, but it is something else."
                    )
                for raw in ijson.items(stream, "item", use_float=True):
                    record = read_exported_task(raw)
                    id_ = int(record.task.id or 0)
                    if id_ in seen:
                        raise DatasetError(f"{self._file} has the task {id_} twice.")
                    seen.add(id_)
                    yield TaskReference(id_, partial(_same, record))
        except (ijson.JSONError, UnicodeDecodeError):
            raise DatasetError(f"{self._file} is no JSON, or cut off.") from None
        except OSError as error:
            raise DatasetError(f"{self._file} cannot be read: {error.strerror}.") from None


def _same(record: TaskRecord) -> TaskRecord:
    return record
