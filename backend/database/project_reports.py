"""Keep the last report of one kind on each project: one row a project."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Column, Float, Integer, Table, Text, delete, insert, select

from backend.database.database import METADATA, Database


class JsonReport(Protocol):
    """A report that can be written as JSON."""

    def to_json(self, *, pictures: bool = True) -> dict[str, Any]:
        """Return it as JSON, with its pictures or without."""


Report = TypeVar("Report", bound=JsonReport)


def report_table(name: str) -> Table:
    """Return a table of reports, which a migration makes."""
    return Table(
        name,
        METADATA,
        Column("project", Integer, primary_key=True, autoincrement=False),
        Column("finished", Float, nullable=False),
        Column("report", Text, nullable=False),  # JSON
    )


@dataclass(frozen=True)
class StoredReport(Generic[Report]):
    """A report that is kept.

    Attributes:
        finished: when it was finished, in seconds since the epoch.
        report: the report.
    """

    finished: float
    report: Report


class ProjectReports(Generic[Report]):
    """The reports of one kind in a database.

    Args:
        database: any number of stores, threads and processes may share it.
        table: where they are, see `report_table`.
        lock: the advisory lock of PostgreSQL under which a row takes the place of another.
        parse: reads what a report's `to_json` has written.
    """

    def __init__(
        self,
        database: Database,
        table: Table,
        lock: int,
        parse: Callable[[Mapping[str, Any]], Report],
    ) -> None:
        self._database = database
        self._table = table
        self._lock = lock
        self._parse = parse

    def keep(self, project: int, report: Report) -> None:
        """Keep a report in place of the last one of its project."""
        text, now = json.dumps(report.to_json()), self._database.clock()
        with self._database.write_exclusively(self._lock) as connection:
            connection.execute(delete(self._table).where(self._table.c.project == project))
            row = {"project": project, "finished": now, "report": text}
            connection.execute(insert(self._table).values(row))

    def last(self, project: int) -> StoredReport[Report] | None:
        """Return the last report of a project; None where there is none."""
        query = select(self._table).where(self._table.c.project == project)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return StoredReport(row.finished, self._parse(json.loads(row.report)))
