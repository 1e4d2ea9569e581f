"""Tell how PostgreSQL does what a call asks of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from backend.database.database import METADATA, Database


def scans(database: Database, call: Callable[[], Any]) -> list[list[str]]:
    """Return the nodes of the plan of each SELECT of a call, as PostgreSQL names them.

    Args:
        database: one of PostgreSQL, whose tables are analyzed first.
        call: what asks it.
    """
    analyze(database)
    with told_queries() as told:
        call()
    found = []
    with database.read() as connection:
        for statement, parameters in told:
            explain = f"EXPLAIN (FORMAT JSON) {statement}"
            (plan,) = connection.exec_driver_sql(explain, parameters).scalar_one()
            found.append([*_nodes(plan["Plan"])])
    assert found, "nothing was asked"
    return found


def analyze(database: Database) -> None:
    """Let a database make statistics of its tables, as PostgreSQL does by itself in a while.

    Only of its own: other tests have their schemas in the same PostgreSQL, too many for its locks.
    """
    names = "" if database.file else ", ".join(METADATA.tables)
    with database.write() as connection:
        connection.exec_driver_sql(f"ANALYZE {names}")


@contextmanager
def told_queries() -> Iterator[list[tuple[str, Any]]]:
    """Note the queries that are sent to any database, each with its parameters."""
    told: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith("SELECT") and "advisory" not in statement:
            told.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield told
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def _nodes(plan: dict[str, Any]) -> Iterator[str]:
    yield plan["Node Type"]
    for each in plan.get("Plans", ()):
        yield from _nodes(each)
