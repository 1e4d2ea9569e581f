"""Backups of an SQLite database, made and restored through SQLite's online backup.

The online backup copies pages inside of transactions: a copy is whole although a backend writes
meanwhile, and what is restored arrives in the file that is there, whole or not at all.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from backend.database.database import Database, alone
from backend.database.migrations.revisions import check_known
from backend.errors import DatabaseInUse

#: How long a command that has just opened the database may take to close it, in seconds.
_WAIT_S: Final = 2.0


def back_up(database: Database, to: Path) -> None:
    """Copy an SQLite database to a new file, while others may read and write it.

    Args:
        database: of any version.
        to: a file that does not exist; it appears when it is complete.

    Raises:
        ValueError: there is no database, the file exists, or it cannot be written.
    """
    source = _file_of(database)
    if not source.exists():
        raise ValueError(f"There is no database at {source} to back up.")
    with _told(f"{source} cannot be copied to {to}"), closing(_read_only(source)) as connection:
        to.parent.mkdir(parents=True, exist_ok=True)
        _copy(connection, to)


def restore(database: Database, backup: Path) -> Path | None:
    """Replace what an SQLite database holds by a backup of it.

    Args:
        database: no process may work with it meanwhile.
        backup: a file that `back_up` made.

    Returns:
        A copy of what the database held before, beside it; None: there was no database.

    Raises:
        DatabaseInUse: another process works with the database.
        DatabaseTooNew: the backup is from a newer version.
        ValueError: the file is no backup, or the database cannot be written.
    """
    target = _file_of(database)
    _check_backup(backup)
    if target.exists() and target.samefile(backup):
        raise ValueError(f"{backup} is the database itself: name a backup of it.")
    with _told(f"{backup} cannot be restored to {target}"), alone(database.url):
        existed = target.exists()
        with closing(_connect(target)) as connection:
            _check_unused(connection, target)
            kept = _keep(connection, target) if existed else None
            with closing(_read_only(backup)) as source:
                source.backup(connection)
    return kept


def _file_of(database: Database) -> Path:
    if database.file is None:
        raise ValueError(f"The database {database.name} is no SQLite file.")
    return database.file


def _check_backup(file: Path) -> None:
    """Refuse a file that is no whole database of a version that is known.

    Raises:
        DatabaseTooNew: it is from a newer version.
        ValueError: it is something else, or damaged.
    """
    with _told(f"{file} cannot be read"), closing(_read_only(file)) as connection:
        if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise ValueError(f"{file} is damaged: take another backup.")
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        tables = {name for (name,) in connection.execute(query)}
        if not {"jobs", "failures", "results"} <= tables:  # which even the first release made
            raise ValueError(f"{file} is no database of this backend.")
        if "alembic_version" in tables:
            (revision,) = connection.execute(
                "SELECT max(version_num) FROM alembic_version"
            ).fetchone()
            check_known(revision)


def _check_unused(connection: sqlite3.Connection, file: Path) -> None:
    """Refuse a database that another connection has open: SQLite leaves WAL only with the last one.

    Raises:
        DatabaseInUse: another connection is open.
        ValueError: the file is no SQLite database.
    """
    try:
        mode = connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        mode = "locked"
    except sqlite3.DatabaseError:
        raise ValueError(
            f"{file} is no SQLite database any more: move it away, then restore the backup."
        ) from None
    if mode != "delete":
        raise DatabaseInUse(
            f"The database {file} is in use: stop the backends and commands that work with it, "
            "then restore it."
        )


def _keep(connection: sqlite3.Connection, file: Path) -> Path:
    """Copy a database to a new file beside it, whose name holds the time of day."""
    now = time.strftime("%Y%m%d-%H%M%S")
    kept = file.with_name(f"{file.stem}.before-restore-{now}{file.suffix}")
    _copy(connection, kept)
    return kept


def _copy(connection: sqlite3.Connection, to: Path) -> None:
    """Copy a database to a file, which appears under its name when it is complete.

    Raises:
        FileExistsError: there is a file of that name.
    """
    if to.exists():
        raise FileExistsError(f"{to} exists already")
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".backup-") as folder:
        part = Path(folder) / to.name
        with closing(_connect(part)) as copy:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without another beside it
        try:
            to.hardlink_to(part)
        except FileExistsError:
            raise FileExistsError(f"{to} exists already") from None
        except OSError:  # a file system without hard links
            part.rename(to)


def _connect(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=_WAIT_S, isolation_level=None)


def _read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say what could not be done, and why, in one sentence."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise ValueError(f"{what}: {error}.") from None
