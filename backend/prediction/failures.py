"""Failures: tasks without a prediction, and why, in the shared database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from backend.database.database import METADATA, Database

#: Failures of one job that keep their reason: the newest.
_MAX_REASONS: Final = 10_000

_FAILURES: Final = Table(
    "failures",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job", Integer, nullable=False, index=True),
    Column("task", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
)


@dataclass(frozen=True)
class Failure:
    """A task that has no prediction.

    Attributes:
        job: the job's id; 0 where Label Studio itself has asked for the prediction.
        task: the task's id.
        reason: one sentence.
        at: when, in seconds since the epoch.
    """

    job: int
    task: int
    reason: str
    at: float


class FailureStore:
    """The failures table of a database.

    Args:
        database: any number of stores, threads and processes may share it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self, job: int | None = None, limit: int = 100) -> list[Failure]:
        """Return the newest failures that have a reason, of one job or of all, newest first."""
        query = (
            select(_FAILURES)
            .where(_FAILURES.c.reason != "")
            .order_by(_FAILURES.c.id.desc())
            .limit(limit)
        )
        if job is not None:
            query = query.where(_FAILURES.c.job == job)
        with self._database.read() as connection:
            rows = connection.execute(query)
            return [Failure(row.job, row.task, row.reason, row.at) for row in rows]

    def task_ids(self, job: int) -> set[int]:
        """Return the ids of all tasks of a job that have failed."""
        query = select(_FAILURES.c.task).where(_FAILURES.c.job == job)
        with self._database.read() as connection:
            return set(connection.scalars(query))

    def add(self, failures: Sequence[tuple[int, str]], job: int = 0) -> None:
        """Insert failures in a transaction of their own.

        Args:
            failures: one or more task ids and reasons.
            job: the job's id; 0 where Label Studio itself has asked for the predictions.
        """
        with self._database.write() as connection:
            self.insert(connection, failures, job)

    def insert(self, connection: Connection, failures: Sequence[tuple[int, str]], job: int) -> None:
        """Insert failures in the caller's transaction; see `add`."""
        now = self._database.clock()
        rows = [{"job": job, "task": task, "reason": why, "at": now} for task, why in failures]
        connection.execute(insert(_FAILURES), rows)
        _trim(connection, job)


def _trim(connection: Connection, job: int) -> None:
    """Delete the oldest failures; of a job, only their reasons, since it skips their tasks."""
    kept = (
        select(_FAILURES.c.id)
        .where(_FAILURES.c.job == job)
        .order_by(_FAILURES.c.id.desc())
        .offset(_MAX_REASONS)
        .limit(1)
    )
    newest_trimmed = connection.execute(kept).scalar()
    if newest_trimmed is None:
        return
    old = (_FAILURES.c.job == job, _FAILURES.c.id <= newest_trimmed)
    if job:
        blank = update(_FAILURES).where(*old, _FAILURES.c.reason != "")
        connection.execute(blank.values(reason=""))
    else:
        connection.execute(delete(_FAILURES).where(*old))
