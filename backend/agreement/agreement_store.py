"""Keeps the last report on the agreement of each project's people."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, Float, Integer, Table, Text, delete, insert, select

from backend.agreement.agreement_report import AgreementReport
from backend.database.database import METADATA, Database

_AGREEMENTS: Final = Table(
    "agreements",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("finished", Float, nullable=False),
    Column("report", Text, nullable=False),  # JSON, see `AgreementReport`
)

#: The advisory lock of PostgreSQL under which a row takes the place of another.
_LOCK: Final = 0xC1EAA63E


@dataclass(frozen=True)
class StoredAgreement:
    """A report that is kept.

    Attributes:
        finished: when it was finished, in seconds since the epoch.
        report: the report.
    """

    finished: float
    report: AgreementReport


class AgreementStore:
    """The reports of a database.

    Args:
        database: any number of stores, threads and processes may share it.

    >>> store = AgreementStore(Database("sqlite://"))
    >>> store.keep(7, AgreementReport(3, 3, 6, 1.0, 0.25))
    >>> store.last(7).report.annotations, store.last(8)
    (6, None)
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, project: int, report: AgreementReport) -> None:
        """Keep a report in place of the last one of its project."""
        text, now = json.dumps(report.to_json()), self._database.clock()
        with self._database.write_exclusively(_LOCK) as connection:
            connection.execute(delete(_AGREEMENTS).where(_AGREEMENTS.c.project == project))
            row = {"project": project, "finished": now, "report": text}
            connection.execute(insert(_AGREEMENTS).values(row))

    def last(self, project: int) -> StoredAgreement | None:
        """Return the last report of a project; None where there is none."""
        query = select(_AGREEMENTS).where(_AGREEMENTS.c.project == project)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return StoredAgreement(row.finished, AgreementReport.from_json(json.loads(row.report)))
