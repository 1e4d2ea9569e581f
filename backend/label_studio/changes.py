"""Ask Label Studio what has changed in a project, in the order of its own clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from backend.label_studio.connection import Connection
from backend.label_studio.records import IdRow, TaskRow, epoch_seconds
from backend.label_studio.task_filter import TaskFilter
from backend.label_studio.task_rows import read_rows

#: Tasks of one request for changed ones.
CHANGES_PAGE: Final = 100


@dataclass(frozen=True)
class ChangedTask:
    """A task as a list of changes shows it. Times are in seconds since the epoch, on Label Studio's
    clock.

    Attributes:
        id: its own.
        created: when it was created.
        updated: when it, one of its annotations or one of its predictions was changed last.
        annotations: the number of its annotations, skipped ones included.
        predictions: the number of its predictions.
        data: values of the label config's variables.
    """

    id: int
    created: float
    updated: float
    annotations: int
    predictions: int
    data: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


class ChangeList:
    """Lists changes in projects of one Label Studio.

    Label Studio sets the time of a task's last change also where an annotation of it is submitted,
    changed, deleted or turned into a draft. It tells nothing of a task that is deleted.

    Args:
        connection: calls the API.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def newest(self, project: int) -> tuple[float, int]:
        """Return the time of the newest change of a project's tasks, and the number of its tasks.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        query = TaskFilter(newest_change_first=True).query()
        rows, total = self._rows(project, 1, query)
        return max((row.updated for row in rows), default=0.0), total

    def tasks(self, project: int, since: float, after_id: int = 0) -> list[ChangedTask]:
        """List the first `CHANGES_PAGE` tasks that were changed after a time, by ascending id.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        wanted = TaskFilter(changed_after=since, after_id=after_id)
        return self._rows(project, CHANGES_PAGE, wanted.query())[0]

    def annotations(self, task: int) -> dict[int, float]:
        """Return the annotations of a task: id -> time of the last change; none of a deleted task.

        Raises:
            BadRequest: they are too large to be read.
            StudioRefused: the token may not see it.
            StudioUnreachable: Label Studio does not answer.
        """
        place = f"/api/tasks/{task}/annotations/"
        found = self._connection.find(place, list[IdRow], whose="annotations")
        return {each.id: epoch_seconds(each.updated_at) for each in found or ()}

    def _rows(self, project: int, size: int, query: str) -> tuple[list[ChangedTask], int]:
        """List tasks that pass a query, and count all of them."""
        rows, total = read_rows(self._connection, project, size, query=query)
        return [_changed_task(row) for row in rows], total


def _changed_task(row: TaskRow) -> ChangedTask:
    return ChangedTask(
        id=row.id,
        created=epoch_seconds(row.created_at),
        updated=epoch_seconds(row.updated_at),
        annotations=(row.total_annotations or 0) + (row.cancelled_annotations or 0),
        predictions=row.total_predictions or 0,
        data=row.data,
    )
