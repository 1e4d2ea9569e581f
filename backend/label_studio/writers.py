"""Store predictions and annotations in Label Studio, each once."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from backend.errors import StudioRefused
from backend.label_studio.connection import Connection, RefusalError
from backend.label_studio.records import AnnotationRow, IdRow, ImportAnswer, read_annotation
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter

#: A project, a filter and a number -> the first tasks that pass the filter, at most so many.
ListTasks = Callable[[int, TaskFilter, int], list[Task]]


class PredictionWriter:
    """Stores the predictions of many tasks with one request."""

    def __init__(self, connection: Connection, list_tasks: ListTasks) -> None:
        self._connection = connection
        self._list_tasks = list_tasks

    def write(
        self, project: int, version: str, entries: Mapping[int, Mapping[str, Any]]
    ) -> dict[int, str]:
        """Store predictions, but not those of tasks that have one of that version.

        A request whose answer was lost may have been stored: before each try, Label Studio is
        asked for the tasks that lack a prediction.

        Args:
            entries: id of a task -> its prediction.

        Returns:
            Id of each task whose prediction Label Studio refuses -> the reason.
        """

        def attempt() -> bool:
            missing = self._missing(project, version, entries)
            return not missing or self._import(project, entries, missing) == len(missing)

        if self._connection.repeat(attempt):
            return {}
        # A request that Label Studio refuses stores nothing, and names one broken entry at most.
        missing = self._missing(project, version, entries)
        refused = {task: self._create(task, entries[task]) for task in missing}
        return {task: reason for task, reason in refused.items() if reason}

    def _missing(self, project: int, version: str, ids: Iterable[int]) -> list[int]:
        """Return the ids of existing tasks that have no prediction of that version."""
        wanted = TaskFilter(without_version=version, ids=tuple(ids))
        found = self._list_tasks(project, wanted, max(1, len(wanted.ids or ())))
        return [task.id for task in found if isinstance(task.id, int)]

    def _import(
        self, project: int, entries: Mapping[int, Mapping[str, Any]], tasks: Sequence[int]
    ) -> int:
        """Send predictions, in halves where they are too large; return how many were stored."""
        body = [{"task": task, **entries[task]} for task in tasks]
        try:
            path = f"/api/projects/{project}/import/predictions"
            return self._connection.send("POST", path, ImportAnswer, body).created
        except RefusalError as error:
            if error.status == 413 and len(tasks) > 1:
                half = len(tasks) // 2
                return sum(self._import(project, entries, t) for t in (tasks[:half], tasks[half:]))
            if error.status in (400, 413):
                return 0
            raise

    def _create(self, task: int, entry: Mapping[str, Any]) -> str:
        """Store one prediction; return the reason where Label Studio refuses it, else nothing."""
        try:
            self._connection.call("POST", "/api/predictions/", IdRow, {"task": task, **entry})
        except StudioRefused as error:
            return str(error)
        return ""


_NAMESPACE: Final = uuid.UUID("6d1b6c52-3d0f-5b6e-9a53-0c5b9d3c6f1e")

#: Label Studio writes both times of a new annotation one after the other: so many seconds at most.
_WRITTEN_WITHIN_S: Final = 2.0


@dataclass
class ImportedAnnotations:
    """The annotations of a task, by their ids.

    Attributes:
        changed: those of the import that somebody has changed, or saved in the editor, and those
            without a time of their last change.
    """

    unchanged: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)


class AnnotationWriter:
    """Stores annotations that were made elsewhere.

    Label Studio keeps a number with each, by which those of one import are found again, and a
    unique id, by which it refuses to store one twice.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, task: int, version: str, result: Sequence[Any]) -> str:
        """Store an annotation of a task; one that an import of that version has is no error.

        Returns:
            The reason where Label Studio refuses it, else nothing.
        """
        unique = str(uuid.uuid5(_NAMESPACE, f"{task}/{version}"))
        try:
            self._connection.call(
                "POST",
                f"/api/tasks/{task}/annotations/",
                IdRow,
                {"result": list(result), "import_id": import_id(version), "unique_id": unique},
            )
        except StudioRefused as error:
            # A request whose answer was lost may have been stored.
            return "" if error.status == 409 else str(error)
        return ""

    def find_imported(self, task: int, version: str) -> ImportedAnnotations:
        """Return a task's annotations of an import, those that were changed since apart."""
        place = f"/api/tasks/{task}/annotations/"
        listed = self._connection.find(place, list[AnnotationRow])
        found = ImportedAnnotations()
        for each in map(read_annotation, listed or ()):
            if each.import_id != import_id(version):
                found.others.append(each.id)
            elif each.seconds is None and 0 < each.updated <= each.created + _WRITTEN_WITHIN_S:
                found.unchanged.append(each.id)
            else:
                found.changed.append(each.id)
        return found

    def delete(self, annotation: int) -> None:
        """Delete an annotation; one that is gone already is no error."""
        self._connection.find(f"/api/annotations/{annotation}/", IdRow, method="DELETE")


def import_id(version: str) -> int:
    """Return the number by which the annotations of an import are found: 53 bits of a digest.

    >>> import_id("masks") == import_id("masks") < 1 << 53
    True
    """
    digest = hashlib.blake2b(version.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 11  # JavaScript reads such numbers exactly
