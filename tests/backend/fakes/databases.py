"""Databases with rows in them, what tables hold, outages, and leases that end."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.exc import OperationalError

from backend.database.database import METADATA, Database
from backend.jobs.job_store import JobStore
from backend.projects.failures import FailureStore


def fill(url: str) -> None:
    store = JobStore(Database(url))
    store.start_job(7)
    FailureStore(store.database).add([(9, "No image: “é”.")])
    store.database.close()


def check_filled(url: str) -> None:
    """Check that the stores read what `fill` has put there, and nothing else."""
    store = JobStore(Database(url))
    assert [job.project for job in store.list_jobs()] == [7]
    failures = FailureStore(store.database).failing()
    assert [(each.task, each.reason) for each in failures] == [(9, "No image: “é”.")]
    store.database.close()


def tables(url: str) -> set[str]:
    """Return the names of all tables but Alembic's own."""
    engine = create_engine(url)
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names - {"alembic_version"}


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    engine = create_engine(url)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        rows = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return rows


def rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    return {name: sorted(execute(url, f"SELECT * FROM {name}"), key=repr) for name in tables(url)}


class FlakyDatabase(Database):
    """Is away for so many writes, as while PostgreSQL restarts or a disk is full."""

    away: float = 0  # so many of the next writes fail
    good: float = inf  # so many of the next writes do not; all that follow fail

    @contextmanager
    def write(self) -> Iterator[Connection]:
        self.good -= 1
        if self.away > 0 or self.good < 0:
            self.away -= 1
            raise OperationalError("UPDATE", {}, Exception("the database is shutting down"))
        with super().write() as connection:
            yield connection


def end_leases(database: Database, owner: str | None = None, table: str = "jobs") -> None:
    """Let all leases of an owner who died be over, as after half a minute; None: everybody's."""
    rows = METADATA.tables[table]
    ended = rows.update().values(leased_until=1.0)
    with database.write() as connection:
        connection.execute(ended if owner is None else ended.where(rows.c.owner == owner))
