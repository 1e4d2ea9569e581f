"""List and read the tasks of a project, through the API or from an exported file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import ijson

from backend.dataset.task_record import (
    TaskPrediction,
    TaskRecord,
    TaskReference,
    read_exported_task,
)
from backend.errors import DatasetError
from backend.label_studio.changes import CHANGES_PAGE, ChangedTask
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.requests import Task

#: Bytes of the stamp of an exported task.
_STAMP_BYTES: Final = 16


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
        return None if self._view is not None else self._client.changes.newest(self._project)[1]

    def references(self) -> Iterator[TaskReference]:
        """Iterate over the tasks, page by page.

        Raises:
            StudioRefused: there is no such project or view for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        among = self._among()
        after = 0
        while True:
            found = self._client.changes.tasks(self._project, 0.0, after)
            for task in found:
                if among is None or task.id in among:
                    stamp = f"{task.updated:.6f}/{task.annotations}/{task.predictions}"
                    yield TaskReference(task.id, stamp, partial(self._read, task))
            if len(found) < CHANGES_PAGE:
                return
            after = found[-1].id

    def _among(self) -> set[int] | None:
        if self._view is None:
            return None
        return set(self._client.view_ids(self._project, self._view))

    def _read(self, found: ChangedTask) -> TaskRecord:
        task = Task(found.id, self._project, found.data)
        annotations = self._client.contents.annotations(found.id) if found.annotations else []
        began = any(each.prediction is not None for each in annotations)
        predictions: tuple[TaskPrediction, ...] = ()
        counts = self._with_predictions and not annotations
        if found.predictions and (began or counts):
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
                    yield TaskReference(id_, _digest(raw), partial(_same, record))
        except (ijson.JSONError, UnicodeDecodeError):
            raise DatasetError(f"{self._file} is no JSON, or cut off.") from None
        except OSError as error:
            raise DatasetError(f"{self._file} cannot be read: {error.strerror}.") from None


def _same(record: TaskRecord) -> TaskRecord:
    return record


def _digest(raw: Any) -> str:
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=_STAMP_BYTES).hexdigest()
