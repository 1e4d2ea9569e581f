"""Databases with rows in them, and what tables hold."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine, inspect, text

from backend.database.database import Database
from backend.jobs.job_store import JobStore
from backend.prediction.failures import FailureStore


def fill(url: str) -> None:
    """Put a job and a failure into a database."""
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
    """Run one statement, and return its rows."""
    engine = create_engine(url)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        rows = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return rows


def rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables, in a fixed order."""
    return {name: sorted(execute(url, f"SELECT * FROM {name}"), key=repr) for name in tables(url)}
