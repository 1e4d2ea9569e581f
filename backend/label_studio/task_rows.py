"""Read pages of a project's tasks as the data manager of Label Studio lists them."""

from __future__ import annotations

from typing import Any

from backend.label_studio.connection import Connection
from backend.label_studio.records import TaskPage, TaskRow


def read_rows(
    connection: Connection, project: int, size: int, page: int = 1, **which: Any
) -> tuple[list[TaskRow], int]:
    """Read one page of tasks, without their annotations and predictions.

    Args:
        connection: calls the API.
        project: its id.
        size: tasks of a page.
        page: number of the page, from 1.
        which: ``query`` or ``view``, which choose and order the tasks; all by default.

    Returns:
        The rows, and the number of tasks on all pages.

    Raises:
        StudioRefused: there is no such project for this token.
        StudioUnreachable: Label Studio does not answer.
    """
    which |= {"project": project, "page": page, "page_size": size}
    given = {"fields": "task_only", "resolve_uri": "false"}
    answer = connection.get("/api/tasks/", TaskPage, **which, **given)
    return answer.tasks, answer.total
