"""A database that is away for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from backend.database.database import Database


class FlakyDatabase(Database):
    """Is away for so many writes, as while PostgreSQL restarts or a disk is full.

    Attributes:
        away: so many of the next writes fail.
        good: so many of the next writes do not; all that follow fail.
    """

    away: float = 0
    good: float = inf

    @contextmanager
    def write(self) -> Iterator[Connection]:
        self.good -= 1
        if self.away > 0 or self.good < 0:
            self.away -= 1
            raise OperationalError("UPDATE", {}, Exception("the database is shutting down"))
        with super().write() as connection:
            yield connection
