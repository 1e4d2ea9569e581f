"""The lists of tasks that jobs are about, in a table of their own.

A list may be many megabytes. In the row of its job, SQLite would write it anew with each step of
the job, and read past it whenever jobs are listed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    Table,
    Text,
    exists,
    func,
    insert,
    select,
    update,
)

from backend.database.database import METADATA

_LISTS: Final = Table(
    "job_tasks",
    METADATA,
    Column("job", Integer, primary_key=True, autoincrement=False),
    Column("tasks", Text),  # a JSON list of ids
    Column("scope", Text),  # a JSON list of ids
)

_ROW: Final = _LISTS.c


def has_list(job: ColumnElement[int]) -> ColumnElement[bool]:
    """Match jobs that have a list."""
    return exists().where(_ROW.job == job)


def has_tasks(job: ColumnElement[int], tasks: Sequence[int] | None) -> ColumnElement[bool]:
    """Match jobs that somebody has named these tasks for; None: jobs without named tasks.

    Args:
        tasks: ids in ascending order.
    """
    named = select(_ROW.tasks).where(_ROW.job == job).scalar_subquery()
    return named.is_not_distinct_from(None if tasks is None else json.dumps(tasks))


def write_tasks(connection: Connection, job: int, tasks: Sequence[int]) -> None:
    """Write the tasks that somebody has named.

    Args:
        connection: to the database, in a transaction that may write.
        tasks: ids in ascending order.
    """
    _write(connection, job, tasks=json.dumps(tasks))


def write_scope(connection: Connection, job: int, scope: Iterable[int]) -> None:
    """Write the tasks that the job is about from now on, in place of those that were named."""
    _write(connection, job, scope=json.dumps(sorted(set(scope))))


def read_list(connection: Connection, job: int) -> tuple[int, ...] | None:
    """Return the ids of a job's tasks in ascending order; None where it has no list."""
    query = select(func.coalesce(_ROW.scope, _ROW.tasks)).where(_ROW.job == job)
    ids = connection.execute(query).scalar()
    return None if ids is None else tuple(json.loads(ids))


def read_named(connection: Connection, jobs: Iterable[int]) -> set[int]:
    """Return the tasks that somebody has named for any of these jobs."""
    named = connection.execute(select(_ROW.tasks).where(_ROW.job.in_(list(jobs)))).scalars()
    return {id_ for ids in named if ids is not None for id_ in json.loads(ids)}


def _write(connection: Connection, job: int, **lists: Any) -> None:
    changed = connection.execute(update(_LISTS).where(_ROW.job == job).values(lists))
    if not changed.rowcount:
        connection.execute(insert(_LISTS).values(job=job, **lists))
