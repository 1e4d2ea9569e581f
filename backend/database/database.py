"""The database that backends share, SQLite or PostgreSQL: connections and transactions.

Any number of threads and processes may hold a `Database` on the same URL.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, TypeVar

from filelock import FileLock
from sqlalchemy import Connection, Engine, MetaData, create_engine, event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from backend.database.migrations.revisions import current, is_up_to_date, upgrade
from backend.settings import Settings

#: The advisory lock of PostgreSQL under which tables are made and jobs are changed.
LOCK: Final = 0xC1EAC119

#: The most keys of one SQL statement.
MAX_KEYS: Final = 400

#: All tables; each module that owns some registers them here.
METADATA: Final = MetaData()

_Database = TypeVar("_Database", bound="Database")
Key = TypeVar("Key", int, str)


class Database:
    """A database, which is opened, and made or upgraded, when it is first used.

    Args:
        url: SQLAlchemy's: ``sqlite:///path`` or ``postgresql+psycopg://...``.
        clock: seconds since the epoch.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self._url = make_url(url)
        self.clock = clock
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    @classmethod
    def from_settings(cls: type[_Database], settings: Settings) -> _Database:
        """The database that settings name; by default ``MODEL_DIR/clearclip.db``."""
        url = settings.database_url
        return cls(
            url.get_secret_value() if url else f"sqlite:///{settings.model_dir / 'clearclip.db'}"
        )

    @property
    def url(self) -> URL:
        """SQLAlchemy's URL, which shows no password."""
        return self._url

    @property
    def name(self) -> str:
        """The URL as people may read it: without its password, and without what follows a ``?``."""
        return self._url.set(query={}).render_as_string()

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database; None for one in memory and for PostgreSQL."""
        return _file(self._url)

    def check(self) -> None:
        """Open the database, upgrade it where it is of an earlier version, and close it again.

        Raises:
            DatabaseTooNew: a newer version has upgraded it.
            ValueError: it cannot be had, in a sentence without its password.
        """
        with self._told("written"), self.write():
            pass
        self.close()

    def revision(self) -> str | None:
        """Read the revision of the database, and change nothing; None: it has none.

        Raises:
            DatabaseTooNew: a newer version has upgraded it.
            ValueError: it cannot be had, in a sentence without its password.
        """
        if self.file is not None and not self.file.exists():
            return None
        with self._told("read"), alone(self._url):
            engine = _connect(self._url)
            try:
                with engine.connect() as connection:
                    return current(connection.execution_options(reads_only=True))
            finally:
                engine.dispose()

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except (OSError, SQLAlchemyError, ImportError) as error:
            raise ValueError(
                f"The database {self.name} cannot be {done} ({sentence(error)}): set DATABASE_URL."
            ) from None

    def close(self) -> None:
        """Close the connections; a later use opens new ones."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()
            self._engine = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write, committed at the end of the block."""
        with self._opened().begin() as connection:
            yield connection

    @contextmanager
    def write_exclusively(self, lock: int) -> Iterator[Connection]:
        """A transaction that may write, one at a time among all processes that use the lock.

        Args:
            lock: the number of an advisory lock of PostgreSQL. SQLite has one writer in any case.
        """
        with self.write() as connection:
            take_lock(connection, lock)
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads, and holds up nobody."""
        with self._opened().connect() as connection:
            yield connection.execution_options(reads_only=True)

    def _opened(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = _open(self._url)
            return self._engine


def take_lock(connection: Connection, lock: int) -> None:
    """Hold an advisory lock of PostgreSQL until the transaction ends; in SQLite, do nothing."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(lock)))


def key_batches(keys: Iterable[Key]) -> Iterator[list[Key]]:
    """Split keys into lists that one SQL statement can hold.

    >>> [len(batch) for batch in key_batches(range(900))]
    [400, 400, 100]
    """
    all_keys = list(keys)
    for start in range(0, len(all_keys), MAX_KEYS):
        yield all_keys[start : start + MAX_KEYS]


def sentence(error: BaseException) -> str:
    """What a database says itself, without the statement that was sent to it.

    >>> sentence(SQLAlchemyError("It shuts down.\\nMore about that."))
    'It shuts down.'
    """
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def _open(url: URL) -> Engine:
    """Connect, and bring the tables to the newest revision.

    Raises:
        DatabaseTooNew: they are at one that this version does not know.
    """
    engine = _connect(url)
    try:
        with alone(url):
            _upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _connect(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": 60})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def alone(url: URL) -> AbstractContextManager[object]:
    """Open an SQLite file while no other process opens it; its folder is made where it is missing.

    While one process makes a new file, SQLite refuses the others at once and lets none wait.
    """
    file = _file(url)
    if file is None:
        return nullcontext()
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{file}.lock")


def _file(url: URL) -> Path | None:
    """Return the file of an SQLite database; None for one in memory and for PostgreSQL."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def _upgrade(engine: Engine) -> None:
    """Upgrade a database that needs it; one that does not is only read, beside who writes."""
    with engine.connect() as connection:
        connection.execution_options(reads_only=True)
        if is_up_to_date(connection):
            return
    with engine.begin() as connection:
        take_lock(connection, LOCK)  # two that start at once must not both upgrade
        upgrade(connection)


def _set_up_sqlite(connection: Any, _record: object) -> None:
    """Readers beside one writer, and transactions that begin where we say so."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_sqlite(connection: Connection) -> None:
    """Writers wait for each other at the beginning: one that has read first could not."""
    reads_only = connection.get_execution_options().get("reads_only")
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
