"""Store predictions and annotations in Label Studio, each once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from backend.errors import StudioRefused
from backend.label_studio.connection import Connection, RefusalError
from backend.label_studio.records import IdRow, ImportAnswer
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


class AnnotationWriter:
    """Stores annotations that were made elsewhere.

    Label Studio keeps a unique id with each, by which it refuses to store one twice.
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
                {"result": list(result), "unique_id": unique},
            )
        except StudioRefused as error:
            # A request whose answer was lost may have been stored.
            return "" if error.status == 409 else str(error)
        return ""
