"""Back up and restore an SQLite database through SQLite's online backup.

It copies pages inside of transactions. So a copy is whole although a backend writes meanwhile, and
a restored backup replaces the content of the file wholly or not at all.
"""

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from backend.database.database import Database, check_known, file_lock
from backend.errors import DatabaseInUse

#: How long to wait for a command that has just opened the database and closes it, in seconds.
_BUSY_TIMEOUT_S: Final = 2.0


def back_up(database: Database, to: Path) -> None:
    """Copy an SQLite database to a new file, while others may read and write it.

    Raises:
        ValueError: there is no database, the file exists, or it cannot be written.
    """
    source = _file_of(database)
    if not source.exists():
        raise ValueError(f"There is no database at {source} to back up.")
    failure = f"{source} cannot be copied to {to}"
    with _as_value_error(failure), closing(_read_only(source)) as connection:
        to.parent.mkdir(parents=True, exist_ok=True)
        _copy(connection, to)


def restore(database: Database, backup: Path) -> Path | None:
    """Replace the content of an SQLite database, which no process may use, by a backup of it.

    Return the file beside it with its earlier content; None if there was no database.

    Raises:
        ValueError: the file is no backup, or the database cannot be written.
    """
    target = _file_of(database)
    _check_backup(backup)
    if target.exists() and target.samefile(backup):
        raise ValueError(f"{backup} is the database itself: name a backup of it.")
    failure = f"{backup} cannot be restored to {target}"
    with _as_value_error(failure), file_lock(database.url):
        existed = target.exists()
        with closing(_connect(target)) as connection:
            _check_unused(connection, target)
            now = time.strftime("%Y%m%d-%H%M%S")
            earlier = target.with_name(f"{target.stem}.before-restore-{now}{target.suffix}")
            if existed:
                _copy(connection, earlier)
            with closing(_read_only(backup)) as source:
                source.backup(connection)
    return earlier if existed else None


def _file_of(database: Database) -> Path:
    if database.file is None:
        raise ValueError(
            f"The database {database.name} is no SQLite file: PostgreSQL has pg_dump, pg_restore."
        )
    return database.file


def _check_backup(file: Path) -> None:
    """Check that a file is an undamaged database of this backend, of a known version."""
    with _as_value_error(f"{file} cannot be read"), closing(_read_only(file)) as connection:
        if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise ValueError(f"{file} is damaged: take another backup.")
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        tables = {name for (name,) in connection.execute(query)}
        if not {"jobs", "failures", "alembic_version"} <= tables:
            raise ValueError(f"{file} is no database of this backend.")
        (revision,) = connection.execute("SELECT max(version_num) FROM alembic_version").fetchone()
        check_known(revision)


def _check_unused(connection: sqlite3.Connection, file: Path) -> None:
    """Check that nobody else has the database open: only the last one may leave the WAL mode."""
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


def _copy(connection: sqlite3.Connection, to: Path) -> None:
    if to.exists():
        raise FileExistsError(f"{to} exists already")
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".backup-") as folder:
        part = Path(folder) / to.name
        with closing(_connect(part)) as copy:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # without WAL, it is one file
        part.rename(to)


def _connect(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=_BUSY_TIMEOUT_S, isolation_level=None)


def _read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)


@contextmanager
def _as_value_error(failure: str) -> Iterator[None]:
    """Raise errors of files and of SQLite as a ValueError: the failure, then the reason."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise ValueError(f"{failure}: {error}.") from None
