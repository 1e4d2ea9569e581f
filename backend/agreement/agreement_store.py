"""Keeps the last report on the agreement of each project's people."""

from __future__ import annotations

from typing import Final

from backend.agreement.agreement_report import AgreementReport
from backend.database.database import Database
from backend.database.project_reports import ProjectReports, report_table

_AGREEMENTS: Final = report_table("agreements")

#: The advisory lock of PostgreSQL under which a row takes the place of another.
_LOCK: Final = 0xC1EAA63E


class AgreementStore(ProjectReports[AgreementReport]):
    """The reports of a database.

    Args:
        database: any number of stores, threads and processes may share it.

    >>> store = AgreementStore(Database("sqlite://"))
    >>> store.keep(7, AgreementReport(3, 3, 6, 1.0, 0.25))
    >>> store.last(7).report.annotations, store.last(8)
    (6, None)
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database, _AGREEMENTS, _LOCK, AgreementReport.from_json)
