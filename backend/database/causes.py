"""Say what is known of why a database could not be used."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import OperationalError

LOCKED: Final = "The database is locked by another program"
FULL: Final = "The disk of the database is full"
NO_CONNECTION: Final = "There is no connection to the database"
CROWDED: Final = "The database takes no more connections"
READ_ONLY: Final = "The database is read-only"
NOT_OPENED: Final = "The file of the database cannot be opened"
BROKEN_DISK: Final = "The disk of the database cannot be read or written"
UNKNOWN: Final = "The database could not be used (the backend's log says why)"

#: SQLSTATE, or the first two letters of its class, of PostgreSQL -> cause.
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL: Final = {
    "08": NO_CONNECTION,
    "53100": FULL,
    "53300": CROWDED,
    "55P03": LOCKED,
    "57P01": NO_CONNECTION,
    "57P02": NO_CONNECTION,
    "57P03": NO_CONNECTION,
    "58030": BROKEN_DISK,
}

#: How messages of SQLite begin -> cause. Python tells the codes only from 3.11 on.
_SQLITE: Final = {
    "database is locked": LOCKED,
    "database table is locked": LOCKED,
    "database schema is locked": LOCKED,
    "database or disk is full": FULL,
    "attempt to write a readonly database": READ_ONLY,
    "unable to open database file": NOT_OPENED,
    "disk I/O error": BROKEN_DISK,
}


def advise(error: OperationalError, what: str) -> str:
    """Return the sentence for people: the cause, and what to do once it is over.

    Args:
        error: of SQLite or of PostgreSQL.
        what: "try again", say. Of an unknown cause nobody knows whether that helps: it is left out.
    """
    cause = cause_of(error)
    return f"{cause}." if cause == UNKNOWN else f"{cause}: {what} once that is over."


def cause_of(error: OperationalError) -> str:
    """Return why the database could not be used: a sentence without its full stop.

    Args:
        error: of SQLite or of PostgreSQL.
    """
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return _POSTGRESQL.get(state) or _POSTGRESQL.get(state[:2], UNKNOWN)
    if type(error.orig).__module__.startswith("psycopg"):
        return NO_CONNECTION  # psycopg has no state where no server, or none any more, answers
    message = str(error.orig)
    return next((said for start, said in _SQLITE.items() if message.startswith(start)), UNKNOWN)
