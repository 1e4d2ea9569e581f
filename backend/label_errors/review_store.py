"""Keeps the last review of each project, and the annotations that people have confirmed."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Float,
    Integer,
    Table,
    delete,
    insert,
    select,
)

from backend.database.database import METADATA, Database
from backend.database.project_reports import ProjectReports, report_table
from backend.label_errors.review_report import ReviewReport

_REVIEWS: Final = report_table("label_reviews")

_CONFIRMED: Final = Table(
    "confirmed_annotations",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("annotation", BigInteger, primary_key=True, autoincrement=False),
    Column("updated", Float, nullable=False),
)

#: The advisory lock of PostgreSQL under which a row takes the place of another.
_LOCK: Final = 0xC1EA1E55


class ReviewStore(ProjectReports[ReviewReport]):
    """The reviews of a database.

    Args:
        database: any number of stores, threads and processes may share it.

    >>> store = ReviewStore(Database("sqlite://"))
    >>> store.keep(7, ReviewReport(reviewed=3, examples=3, seconds=1.0))
    >>> store.confirm(7, 12, 5.0)
    >>> store.last(7).report.reviewed, store.confirmed(7)
    (3, {12: 5.0})
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database, _REVIEWS, _LOCK, ReviewReport.from_json)

    def confirm(self, project: int, annotation: int, updated: float) -> None:
        """Remember that somebody has confirmed a version of an annotation.

        Args:
            project: the id of its project.
            annotation: its id.
            updated: when it was changed last, in seconds since the epoch.
        """
        row = {"project": project, "annotation": annotation, "updated": updated}
        with self._database.write_exclusively(_LOCK) as connection:
            connection.execute(delete(_CONFIRMED).where(*_of(project, annotation)))
            connection.execute(insert(_CONFIRMED).values(row))

    def take_back(self, project: int, annotation: int) -> None:
        """Forget that an annotation was confirmed."""
        with self._database.write() as connection:
            connection.execute(delete(_CONFIRMED).where(*_of(project, annotation)))

    def confirmed(self, project: int) -> dict[int, float]:
        """Return the annotations that are confirmed: id -> when that version was made."""
        query = select(_CONFIRMED).where(_CONFIRMED.c.project == project)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_CONFIRMED.c.annotation))
            return {row.annotation: row.updated for row in rows}


def _of(project: int, annotation: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _CONFIRMED.c.project == project, _CONFIRMED.c.annotation == annotation
