"""Failures: tasks without a prediction, and why, in the shared database.

A failure stands there until its task is predicted, by whichever backend on the database.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from backend.database.database import METADATA, Database, key_batches

_MOST_KEPT: Final = 10_000  # failures of no job that are kept: the newest
_MOST_OF_PROJECT: Final = (
    2000  # the most failing tasks of a project that Label Studio is asked about
)

#: How long a failure is listed, in seconds: nothing tells when its task is deleted.
_LISTED_FOR_S: Final = 30 * 86400.0

_FAILURES: Final = sa.Table(
    "failures",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job", sa.Integer, nullable=False, index=True),
    sa.Column("task", sa.BigInteger, nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("project", sa.Integer),
)


@dataclass(frozen=True)
class FailingTask:
    """A task without a prediction, with all failures since it had one."""

    task: int
    project: int | None  # its project; None where that is not known
    job: int  # the id of the job that has met the newest failure; 0 where it was none
    reason: str
    at: float  # when the newest failure was, in seconds since the epoch
    since: float  # when the first one was


@dataclass(frozen=True)
class FailureCount:
    """How many tasks have no prediction."""

    tasks: int = 0
    since: float | None = None  # when the first one was, in seconds since the epoch


class FailureStore:
    """The failures table of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_job(self, job: int, limit: int = 100) -> list[FailingTask]:
        """Return the newest failures of one job; `since` is the time of the failure."""
        row = _FAILURES.c
        query = sa.select(row.task, row.project, row.job, row.reason, row.at, row.at.label("since"))
        query = query.where(row.job == job).order_by(row.id.desc()).limit(limit)
        return [FailingTask(*each) for each in self._database.rows(query)]

    def of_task(self, project: int, task: int) -> list[FailingTask]:
        """Return the failures of a task since it had a prediction, the oldest first.

        Failures whose project is not known are among them.
        """
        row = _FAILURES.c
        query = sa.select(row.task, row.project, row.job, row.reason, row.at, row.at.label("since"))
        is_its = (row.task == task) & (row.project.is_(None) | (row.project == project))
        return [FailingTask(*each) for each in self._database.rows(query.where(is_its))]

    def failing(self, limit: int = 100, without: Collection[int] = ()) -> list[FailingTask]:
        """Return tasks without a prediction, outside of some projects, the last to fail first."""
        row = _FAILURES.c
        last = sa.func.max(row.id).label("last")
        since = sa.func.min(row.at).label("since")
        project = sa.func.max(row.project).label("project")
        by_task = sa.select(last, since, project).where(*self._listed(without)).group_by(row.task)
        newest = by_task.order_by(last.desc()).limit(limit).subquery()

        query = sa.select(row.task, newest.c.project, row.job, row.reason, row.at, newest.c.since)
        query = query.join(newest, row.id == newest.c.last).order_by(row.id.desc())
        return [FailingTask(*each) for each in self._database.rows(query)]

    def count(self, without: Collection[int] = (), project: int | None = None) -> FailureCount:
        """Count the tasks without a prediction, except those of some projects, or of one alone."""
        tasks = sa.func.count(_FAILURES.c.task.distinct())
        query = sa.select(tasks, sa.func.min(_FAILURES.c.at)).where(*self._listed(without))
        if project is not None:
            query = query.where(_FAILURES.c.project == project)
        return FailureCount(*self._database.rows(query)[0])

    def by_project(self) -> dict[int, int]:
        """Count the tasks without a prediction of each project that has any."""
        row = _FAILURES.c
        query = sa.select(row.project, sa.func.count(row.task.distinct()))
        query = query.where(*self._listed(), row.project.is_not(None)).group_by(row.project)
        return dict(self._database.rows(query))

    def solve(self, tasks: Collection[int]) -> None:
        """Forget the failures of tasks that have been predicted."""
        for some in key_batches(tasks):
            own = _FAILURES.c.task.in_(some)
            # Most tasks have none: nobody waits then.
            if self._database.rows(sa.select(_FAILURES.c.id).where(own).limit(1)):
                self._database.execute(sa.delete(_FAILURES).where(own))

    def task_ids(self, job: int) -> set[int]:
        """Return the ids of the tasks of a job that have failed and are not predicted since."""
        query = sa.select(_FAILURES.c.task).where(_FAILURES.c.job == job)
        return {task for (task,) in self._database.rows(query)}

    def of_project(self, project: int) -> list[int]:
        """Return the ids of a project's tasks without a prediction; of many, the last to fail."""
        row = _FAILURES.c
        query = (
            sa.select(row.task).where(*self._listed(), row.project == project).group_by(row.task)
        )
        last_first = query.order_by(sa.func.max(row.id).desc()).limit(_MOST_OF_PROJECT)
        return [task for (task,) in self._database.rows(last_first)]

    def add(
        self, failures: Sequence[tuple[int, str]], job: int = 0, project: int | None = None
    ) -> None:
        """Insert failures in a transaction of their own; job 0 stands for Label Studio itself."""
        with self._database.write() as connection:
            self.insert(connection, failures, job, project)

    def insert(
        self,
        connection: sa.Connection,
        failures: Sequence[tuple[int, str]],
        job: int,
        project: int | None,
    ) -> None:
        """Insert failures in the caller's transaction; see `add`."""
        known = {"job": job, "project": project, "at": self._database.clock()}
        rows = [{"task": task, "reason": why, **known} for task, why in failures]
        connection.execute(sa.insert(_FAILURES), rows)
        if not job:
            _trim(connection)

    def _listed(self, without: Collection[int] = ()) -> tuple[sa.ColumnElement[bool], ...]:
        project = _FAILURES.c.project
        wanted = (sa.or_(project.is_(None), project.not_in(without)),) if without else ()
        return (_FAILURES.c.at > self._database.clock() - _LISTED_FOR_S, *wanted)


def _trim(connection: sa.Connection) -> None:
    """Delete the oldest failures of no job; a job skips the tasks of all of its own."""
    row = _FAILURES.c
    kept = sa.select(row.id).where(row.job == 0).order_by(row.id.desc()).offset(_MOST_KEPT).limit(1)
    oldest = connection.scalar(kept)
    if oldest is not None:
        connection.execute(sa.delete(_FAILURES).where(row.job == 0, row.id <= oldest))
