"""What is said of a database that fails is what has happened to it: each is provoked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from backend.database import database as causes
from backend.database.database import Database, cause_of


@contextmanager
def failing() -> Iterator[list[str]]:
    """The cause of the error that the block ends with."""
    said: list[str] = []
    with pytest.raises(OperationalError) as failed:
        yield said
    said.append(cause_of(failed.value))


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr("backend.database.database._LOCK_TIMEOUT_S", 0.01)
    database = Database(f"sqlite:///{tmp_path}/a.db")
    with database.write():
        pass
    yield database
    database.close()


def test_a_file_that_another_program_locks(sqlite: Database) -> None:
    with closing(sqlite3.connect(str(sqlite.file), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with failing() as said, sqlite.write():
            pass
    assert said == [causes.LOCKED]


@pytest.mark.parametrize(
    ("limit", "cause"),
    [("PRAGMA max_page_count = 1", causes.FULL), ("PRAGMA query_only = 1", causes.READ_ONLY)],
)
def test_a_file_that_may_grow_no_more_or_must_not_be_written(
    sqlite: Database, limit: str, cause: str
) -> None:
    with failing() as said, sqlite.write() as connection:
        connection.execute(text(limit))
        connection.execute(text("CREATE TABLE more AS SELECT randomblob(1000000) AS bytes"))
    assert said == [cause]


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.db").mkdir()
    with failing() as said, Database(f"sqlite:///{tmp_path}/a.db").read():
        pass
    assert said == [causes.NOT_OPENED]


def test_a_server_that_is_not_there() -> None:
    with failing() as said, Database("postgresql+psycopg://ann@127.0.0.1:9/name").read():
        pass
    assert said == [causes.NO_CONNECTION]


def test_a_server_that_ends_a_connection(postgres_url: Callable[[str], str]) -> None:
    database = Database(postgres_url("causes-ended"))
    with failing() as said, database.read() as connection:
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    database.close()
    assert said == [causes.NO_CONNECTION]


def test_a_row_that_another_program_locks(postgres_url: Callable[[str], str]) -> None:
    database = Database(postgres_url("causes-locked"))
    with database.write() as holder:
        holder.execute(text("LOCK TABLE jobs"))
        with failing() as said, database.write() as waiting:
            waiting.execute(text("SET LOCAL lock_timeout = '10ms'"))
            waiting.execute(text("LOCK TABLE jobs"))
    database.close()
    assert said == [causes.LOCKED]


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (errors.DiskFull, causes.FULL),
        (errors.TooManyConnections, causes.CROWDED),
        (errors.CannotConnectNow, causes.NO_CONNECTION),
        (errors.ConnectionFailure, causes.NO_CONNECTION),
        (errors.IoError, causes.BROKEN_DISK),
        (errors.DeadlockDetected, causes.UNKNOWN_CAUSE),
    ],
)
def test_states_that_no_test_can_provoke(kind: type[psycopg.Error], cause: str) -> None:
    assert cause_of(OperationalError("SELECT 1", {}, kind("No."))) == cause
