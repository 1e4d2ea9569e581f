"""Keeps the tasks that were chosen last for each project."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, Float, Integer, Table, Text, delete, insert, select

from backend.database.database import METADATA, Database
from backend.task_order.next_tasks import NextTasks

_NEXT_TASKS: Final = Table(
    "next_tasks",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("finished", Float, nullable=False),
    Column("report", Text, nullable=False),  # JSON, see `NextTasks`
)

#: The advisory lock of PostgreSQL under which a row takes the place of another.
_LOCK: Final = 0xC1EA4E87


@dataclass(frozen=True)
class StoredNextTasks:
    """A choice of tasks that is kept.

    Attributes:
        finished: when it was finished, in seconds since the epoch.
        report: the tasks.
    """

    finished: float
    report: NextTasks


class NextTasksStore:
    """The choices of a database.

    Args:
        database: any number of stores, threads and processes may share it.

    >>> store = NextTasksStore(Database("sqlite://"))
    >>> store.keep(7, NextTasks(20, (), 0, 0, 0, 0, 1.0))
    >>> store.last(7).report.asked, store.last(8)
    (20, None)
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, project: int, report: NextTasks) -> None:
        """Keep a choice in place of the last one of its project."""
        text, now = json.dumps(report.to_json()), self._database.clock()
        with self._database.write_exclusively(_LOCK) as connection:
            connection.execute(delete(_NEXT_TASKS).where(_NEXT_TASKS.c.project == project))
            row = {"project": project, "finished": now, "report": text}
            connection.execute(insert(_NEXT_TASKS).values(row))

    def last(self, project: int) -> StoredNextTasks | None:
        """Return the last choice of a project; None where there is none."""
        query = select(_NEXT_TASKS).where(_NEXT_TASKS.c.project == project)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return StoredNextTasks(row.finished, NextTasks.from_json(json.loads(row.report)))
