"""Bring the tables of a database to the newest revision.

A revision is a file of `backend.database.migrations.versions`, whose name begins with its number.
The table ``alembic_version`` of a database holds the number of the revision that it is at; an
empty database has no such table.
"""

from __future__ import annotations

import logging
import threading
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from backend.errors import DatabaseRefused

log = logging.getLogger(__name__)

#: Alembic keeps what it works at in module globals: one thread of a process at a time upgrades.
_UPGRADING: Final = threading.Lock()


@cache
def revisions() -> tuple[str, ...]:
    """Return the numbers of all revisions that this version knows, in ascending order.

    They are read from the names of the files, since importing Alembic takes longer than opening a
    database that is up to date.

    >>> revisions()[0]
    '0200'
    """
    files = (Path(__file__).parent / "versions").glob("[0-9]*_*.py")
    return tuple(sorted(file.name.partition("_")[0] for file in files))


def check_known(revision: str | None) -> None:
    """Refuse a revision that this version does not know.

    Raises:
        DatabaseRefused: it does not; None: a version before 0.2 has made the tables.
    """
    if revision in revisions():
        return
    if revision is None or revision < revisions()[0]:
        raise DatabaseRefused(
            "The database is from a version of the backend before 0.2, and is not upgraded: choose "
            "another MODEL_DIR or DATABASE_URL, or move the database away. Annotations and "
            "predictions are in Label Studio, and are read again."
        )
    raise DatabaseRefused(
        f"The database is from a newer version of the backend (its revision is {revision}, "
        f"and this version knows those up to {revisions()[-1]}): install the newer version, "
        "or restore a backup with `clearclip-backend database restore FILE`."
    )


def current(connection: Connection) -> str | None:
    """Return the revision of a database; None: it is empty."""
    inspector = inspect(connection)
    if not inspector.has_table("alembic_version"):
        if inspector.has_table("jobs"):
            check_known(None)
        return None
    found = connection.execute(text("SELECT max(version_num) FROM alembic_version")).scalar()
    if found is None:
        return None
    check_known(str(found))
    return str(found)


def is_up_to_date(connection: Connection) -> bool:
    """Return whether a database is at the newest revision."""
    return current(connection) == revisions()[-1]


def upgrade_tables(connection: Connection) -> None:
    """Run the revisions that a database lacks, in the transaction that the connection is in.

    The caller keeps other processes from doing so at the same time.
    """
    before = current(connection)
    if before == revisions()[-1]:
        return
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with _UPGRADING:
        command.upgrade(config, "head")
    if before is not None:
        log.info("The database is upgraded from revision %s to %s", before, current(connection))
