"""A database that is away for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from backend.database.database import Database


class FlakyDatabase(Database):
    """Is away for so many writes, as while PostgreSQL restarts or a disk is full."""

    away: float = 0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        if self.away > 0:
            self.away -= 1
            raise OperationalError("UPDATE", {}, Exception("the database is shutting down"))
        with super().write() as connection:
            yield connection
