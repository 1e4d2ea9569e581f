"""The newest forecast of each project, kept in the database for the pages: one row a project."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, Float, Integer, Table, Text, insert, select, update

from backend.database.database import METADATA, Database
from backend.feedback.forecast.hours_left import HoursLeft

_FORECASTS: Final = Table(
    "forecasts",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("annotations", Integer, nullable=False, default=0),
    Column("due", Float, nullable=False, default=0.0),
    Column("figures", Text, nullable=False, default=""),
)

_ROW: Final = _FORECASTS.c

#: The advisory lock of PostgreSQL under which a forecast is claimed.
_LOCK: Final = 0xC1EAF04E

#: How old a forecast becomes where no annotation is added, in seconds: tasks may be new.
_DAY_S: Final = 86400.0

#: How long a backend that has claimed a forecast has for it, in seconds.
_CLAIMED_FOR_S: Final = 900.0

#: The number of annotations of a forecast that is claimed and was never made: none is equal to it.
_NONE_MADE: Final = -1


@dataclass(frozen=True)
class ForecastStore:
    """Keeps forecasts; backends that share a database share them.

    Args:
        database: where they are kept.

    >>> forecasts = ForecastStore(Database("sqlite://"))
    >>> forecasts.claim(7, 20), forecasts.claim(7, 20)
    (True, False)
    """

    database: Database

    def read(self, project: int) -> HoursLeft | None:
        """Return the newest forecast for a project; None where there is none yet."""
        with self.database.read() as connection:
            query = select(_ROW.figures).where(_ROW.project == project)
            figures = connection.execute(query).scalar()
        return HoursLeft.from_json(json.loads(figures)) if figures else None

    def claim(self, project: int, annotations: int) -> bool:
        """Return whether a forecast is to be made now, and by the caller.

        It is where there is none, or where its time has come and annotations were added or removed,
        or a day has passed.

        Args:
            project: its id.
            annotations: the number of its measured annotations.
        """
        now = self.database.clock()
        query = select(_FORECASTS).where(_ROW.project == project)
        with self.database.read() as connection:  # most often nothing is due: no lock
            row = connection.execute(query).first()
        if row is not None and not _is_due(row.due, row.annotations != annotations, now):
            return False
        due = now + _CLAIMED_FOR_S  # and no number: what fails is tried again then
        with self.database.write_exclusively(_LOCK) as connection:
            row = connection.execute(query).first()
            if row is None:
                empty = {"project": project, "annotations": _NONE_MADE, "figures": ""}
                connection.execute(insert(_FORECASTS).values(empty | {"due": due}))
                return True
            if not _is_due(row.due, row.annotations != annotations, now):
                return False
            connection.execute(update(_FORECASTS).where(_ROW.project == project).values(due=due))
        return True

    def keep(self, project: int, forecast: HoursLeft, next_after_s: float) -> None:
        """Keep a forecast in place of the one before it.

        Args:
            project: its id.
            forecast: the new one.
            next_after_s: how long it stays where annotations are added, in seconds.
        """
        figures = json.dumps(forecast.to_json())
        values = {
            "annotations": forecast.n_with + forecast.n_without,
            "due": self.database.clock() + next_after_s,
            "figures": figures,
        }
        with self.database.write_exclusively(_LOCK) as connection:
            which = update(_FORECASTS).where(_ROW.project == project)
            if not connection.execute(which.values(values)).rowcount:
                connection.execute(insert(_FORECASTS).values({"project": project} | values))


def _is_due(due: float, is_changed: bool, now: float) -> bool:
    return now >= due if is_changed else now >= due + _DAY_S
