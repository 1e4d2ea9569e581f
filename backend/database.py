"""The database that backends share, SQLite or PostgreSQL: connections, transactions, owners.

Any number of threads and processes may hold a `Database` on the same URL. Work in it is leased for
`LEASE_S` at a time by an owner, see `new_owner`. The clocks of all machines that share a database
must agree to within a fraction of `LEASE_S`.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, TypeVar

from filelock import FileLock
from sqlalchemy import Connection, Engine, MetaData, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from backend.settings import Settings

#: How long a lease lasts that is not renewed, in seconds.
LEASE_S: Final = 30.0

#: The advisory lock of PostgreSQL under which tables are made and jobs are changed.
LOCK: Final = 0xC1EAC119

#: All tables; each module that owns some registers them here.
METADATA: Final = MetaData()

_Database = TypeVar("_Database", bound="Database")


class Database:
    """A database, which is opened and made when it is first used.

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

    def check(self) -> None:
        """Open the database and close it again.

        Raises:
            ValueError: it cannot be had, in a sentence without its password.
        """
        try:
            with self.write():
                pass
        except (OSError, SQLAlchemyError, ImportError) as error:
            shown = self._url.set(query={}).render_as_string()  # a password may stand there too
            raise ValueError(
                f"The database {shown} cannot be written ({sentence(error)}): set DATABASE_URL."
            ) from None
        self.close()

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
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads, and holds up nobody."""
        with self._opened().connect() as connection:
            yield connection.execution_options(reads_only=True)

    def _opened(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = _open(self._url.render_as_string(hide_password=False))
            return self._engine


def new_owner() -> str:
    """A name for a worker, as no other has: machine, process, and a word by chance.

    >>> new_owner().split(":")[1] == str(os.getpid()), new_owner() == new_owner()
    (True, False)
    """
    return f"{socket.gethostname()[:80]}:{os.getpid()}:{secrets.token_hex(4)}"


def has_died(owner: str) -> bool:
    """Whether an owner was a process of this machine that is no more; False where nobody knows.

    >>> has_died(new_owner()), has_died("elsewhere:1:ab")
    (False, False)
    """
    host, _, process = owner.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname()[:80] or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's
        return False
    return False


def sentence(error: BaseException) -> str:
    """What a database says itself, without the statement that was sent to it.

    >>> sentence(SQLAlchemyError("It shuts down.\\nMore about that."))
    'It shuts down.'
    """
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def _open(url: str) -> Engine:
    """Connect, and make the tables that are not there yet."""
    made = make_url(url)
    first: AbstractContextManager[object] = nullcontext()
    if made.get_backend_name() == "sqlite":
        file = made.database
        if file and file != ":memory:":
            # A new file is made by one at a time: meanwhile SQLite refuses others at once.
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            first = FileLock(f"{file}.lock")
        engine = create_engine(url, connect_args={"timeout": 60})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = create_engine(url, pool_pre_ping=True)
    with first, engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # two that start at once must not both make
            connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
        METADATA.create_all(connection)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    """Readers beside one writer, and transactions that begin where we say so."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_sqlite(connection: Connection) -> None:
    """Writers wait for each other at the beginning: one that has read first could not."""
    reads_only = connection.get_execution_options().get("reads_only")
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
