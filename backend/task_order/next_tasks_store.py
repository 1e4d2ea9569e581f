"""Keeps the tasks that were chosen last for each project."""

from __future__ import annotations

from typing import Final

from backend.database.database import Database
from backend.database.project_reports import ProjectReports, report_table
from backend.task_order.next_tasks import NextTasks

_NEXT_TASKS: Final = report_table("next_tasks")

#: The advisory lock of PostgreSQL under which a row takes the place of another.
_LOCK: Final = 0xC1EA4E87


class NextTasksStore(ProjectReports[NextTasks]):
    """The choices of a database.

    Args:
        database: any number of stores, threads and processes may share it.

    >>> store = NextTasksStore(Database("sqlite://"))
    >>> store.keep(7, NextTasks(20, (), 0, 0, 0, 0, 1.0))
    >>> store.last(7).report.asked, store.last(8)
    (20, None)
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database, _NEXT_TASKS, _LOCK, NextTasks.from_json)
