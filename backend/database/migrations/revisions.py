"""Bring the tables of a database to the newest revision.

A revision is a file of `backend.database.migrations.versions`, whose name begins with its number.
The table ``alembic_version`` of a database holds the number of the revision that it is at. A
database without that table is empty, or of a release that had no revisions; it is upgraded from
the first on.
"""

from __future__ import annotations

import logging
import threading
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from backend.errors import DatabaseTooNew

log = logging.getLogger(__name__)

#: Alembic keeps what it works at in module globals: one thread of a process at a time upgrades.
_UPGRADING: Final = threading.Lock()


@cache
def revisions() -> tuple[str, ...]:
    """Return the numbers of all revisions that this version knows, in ascending order.

    They are read from the names of the files, since importing Alembic takes longer than opening a
    database that is up to date.

    >>> revisions()[0]
    '0001'
    """
    files = (Path(__file__).parent / "versions").glob("[0-9]*_*.py")
    return tuple(sorted(file.name.partition("_")[0] for file in files))


def check_known(revision: str | None) -> None:
    """Refuse a revision that this version does not know.

    Raises:
        DatabaseTooNew: it does not.
    """
    if revision is not None and revision not in revisions():
        raise DatabaseTooNew(
            f"The database is from a newer version of the backend (its revision is {revision}, "
            f"and this version knows those up to {revisions()[-1]}): install the newer version, "
            "or restore a backup with `clearclip-backend database restore FILE`."
        )


def current(connection: Connection) -> str | None:
    """Return the revision of a database; None: it has none.

    Raises:
        DatabaseTooNew: this version does not know that revision.
    """
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT max(version_num) FROM alembic_version")).scalar()
    revision = None if found is None else str(found)
    check_known(revision)
    return revision


def is_up_to_date(connection: Connection) -> bool:
    """Return whether a database is at the newest revision.

    Raises:
        DatabaseTooNew: it is at one that this version does not know.
    """
    return current(connection) == revisions()[-1]


def upgrade(connection: Connection, to: str = "head") -> None:
    """Run the revisions that a database lacks, in the transaction that the connection is in.

    The caller keeps other processes from doing so at the same time.

    Args:
        connection: to the database, in a transaction that may write.
        to: the last revision to run; by default the newest.

    Raises:
        DatabaseTooNew: the database is at a revision that this version does not know.
    """
    from alembic import command
    from alembic.config import Config

    before = current(connection)
    if before == (revisions()[-1] if to == "head" else to):
        return
    is_new = not inspect(connection).get_table_names()
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with _UPGRADING:
        command.upgrade(config, to)
    level = logging.DEBUG if is_new else logging.INFO
    told = ("none" if before is None else before, current(connection))
    log.log(level, "The database is upgraded from revision %s to %s", *told)
