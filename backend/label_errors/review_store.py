"""Keeps the last review of each project, and the annotations that people have confirmed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Float,
    Integer,
    Table,
    Text,
    delete,
    insert,
    select,
)

from backend.database.database import METADATA, Database
from backend.label_errors.review_report import ReviewReport

_REVIEWS: Final = Table(
    "label_reviews",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("finished", Float, nullable=False),
    Column("report", Text, nullable=False),  # JSON, see `ReviewReport`
)

_CONFIRMED: Final = Table(
    "confirmed_annotations",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("annotation", BigInteger, primary_key=True, autoincrement=False),
    Column("updated", Float, nullable=False),
)

#: The advisory lock of PostgreSQL under which a row takes the place of another.
_LOCK: Final = 0xC1EA1E55


@dataclass(frozen=True)
class StoredReview:
    """A review that is kept.

    Attributes:
        finished: when it was finished, in seconds since the epoch.
        report: what it has found.
    """

    finished: float
    report: ReviewReport


class ReviewStore:
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
        self._database = database

    def keep(self, project: int, report: ReviewReport) -> None:
        """Keep a review in place of the last one of its project."""
        text, now = json.dumps(report.to_json()), self._database.clock()
        with self._database.write_exclusively(_LOCK) as connection:
            connection.execute(delete(_REVIEWS).where(_REVIEWS.c.project == project))
            row = {"project": project, "finished": now, "report": text}
            connection.execute(insert(_REVIEWS).values(row))

    def last(self, project: int) -> StoredReview | None:
        """Return the last review of a project; None where there is none."""
        query = select(_REVIEWS).where(_REVIEWS.c.project == project)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return StoredReview(row.finished, ReviewReport.from_json(json.loads(row.report)))

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
