"""The database that backends share, SQLite or PostgreSQL: connections, transactions, revisions.

Any number of threads and processes may hold a `Database` on the same URL. A revision of the tables
is a file of `backend.database.migrations.versions`, whose name begins with its number. The table
``alembic_version`` holds the number that a database is at; an empty database has no such table.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from backend.errors import DatabaseRefused
from backend.settings import Settings

#: The advisory lock of PostgreSQL under which tables are made and jobs are changed.
LOCK: Final = 0xC1EAC119

#: Longest wait for a connection to PostgreSQL, in seconds: a host that is gone says nothing.
_CONNECT_TIMEOUT_S: Final = 10

_LOCK_TIMEOUT_S: Final = 10  # time for which SQLite waits for another writer, in seconds

#: Connections to PostgreSQL beyond those that are kept open, for readers and for writers each.
#: With SQLAlchemy's five that are kept, a process has 20 at most; a server takes 100 by default.
_MORE_CONNECTIONS: Final = 5

MAX_KEYS: Final = 400  # the most keys of one SQL statement

#: What to do about an SQLite file that cannot be opened; its usual cause is the folder's owner.
_ADVICE: Final = (
    "MODEL_DIR to a folder that this user may write, or DATABASE_URL to another database. With "
    "Docker Compose, user 1000 must own the folder that MODELS names: chown -R 1000 FOLDER."
)

METADATA: Final = sa.MetaData()  # all tables; each module that owns some registers them here

_MIGRATIONS: Final = Path(__file__).parent / "migrations"

#: Alembic keeps what it works at in module globals: one thread of a process at a time upgrades.
_UPGRADING: Final = threading.Lock()

Key = TypeVar("Key", int, str)
Value = TypeVar("Value")

log = logging.getLogger(__name__)


class Database:
    """A database, opened at its first use, and created or upgraded then."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self.url = make_url(url)  # as text, it hides the password
        self.clock = clock  # seconds since the epoch
        self._lock = threading.Lock()
        self._engines: tuple[sa.Engine, sa.Engine] | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "Database":
        """Make the database of the settings; by default ``MODEL_DIR/clearclip.db``."""
        url = settings.database_url
        return cls(
            url.get_secret_value() if url else f"sqlite:///{settings.model_dir / 'clearclip.db'}"
        )

    @property
    def name(self) -> str:
        """The URL for logs and messages, without the password and the query after ``?``."""
        return self.url.set(query={}).render_as_string()

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database; None for one in memory and for PostgreSQL."""
        return _file(self.url)

    def check(self) -> None:
        """Open the database, upgrade it from an earlier version, and close it again."""
        with self._as_value_error("written"), self.write():
            pass
        self.close()

    def revision(self) -> str | None:
        """Read the revision of the database and change nothing; None: it is empty or not there."""
        if self.file is not None and not self.file.exists():
            return None
        with self._as_value_error("read"), file_lock(self.url):
            engine = _connect(self.url)
            try:
                with engine.connect() as connection:
                    return current_revision(connection.execution_options(reads_only=True))
            finally:
                engine.dispose()

    @contextmanager
    def _as_value_error(self, done: str) -> Iterator[None]:
        """Raise errors of the database as a ValueError that says what to set."""
        try:
            yield
        except ImportError as error:
            raise ValueError(
                f"The database {self.name} needs a package that is not installed "
                f"({error_message(error)}): pip install 'clearclip-label-studio[postgres]'."
            ) from None
        except (OSError, SQLAlchemyError) as error:
            raise ValueError(
                f"The database {self.name} cannot be {done} ({error_message(error)}): "
                f"set {_ADVICE if self.file else 'DATABASE_URL.'}"
            ) from None

    def close(self) -> None:
        """Close the connections; a later use opens new ones."""
        with self._lock:
            for engine in self._engines or ():
                engine.dispose()
            self._engines = None

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that may write; it is committed at the end of the block."""
        with self._open_engines()[0].begin() as connection:
            yield connection

    @contextmanager
    def write_exclusively(self, lock: int) -> Iterator[sa.Connection]:
        """Open a transaction that may write, one at a time among all processes that use the lock.

        It is an advisory lock of PostgreSQL. SQLite has only one writer anyway.
        """
        with self.write() as connection:
            take_lock(connection, lock)
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a connection that only reads; no transaction waits for it.

        On SQLite all its statements see the same; on PostgreSQL each sees what was committed before
        it, and is sent alone, without the begin and the end of a transaction.
        """
        with self._open_engines()[1].connect() as connection:
            yield connection.execution_options(reads_only=True)

    def rows(self, query: sa.Executable) -> Sequence[Any]:
        with self.read() as connection:
            return connection.execute(query).all()

    def scalar(self, query: sa.Executable) -> Any:
        """Return the first value of the first row of one query; None where there is none."""
        with self.read() as connection:
            return connection.scalar(query)

    def execute(self, statement: sa.UpdateBase) -> None:
        """Change what one statement says, in a transaction of its own."""
        with self.write() as connection:
            connection.execute(statement)

    def _open_engines(self) -> tuple[sa.Engine, sa.Engine]:
        """Return the engine of transactions that may write, and that of those that only read.

        Writers that wait for each other hold a connection each, so readers of PostgreSQL have their
        own pool; with SQLite both engines are the same, without a limit.
        """
        with self._lock:
            if self._engines is None:
                self._engines = _open(self.url)
            return self._engines


def read_json(text: str, kind: type[Value]) -> Value | None:
    """Return a value that was stored as JSON; None where another version has stored it otherwise.

    >>> read_json('{"a": 1}', dict[str, int]), read_json('{"a": "1"}', dict[str, int])
    ({'a': 1}, None)
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        log.warning("A stored %s is of another version: %s", kind.__name__, error)
        return None


def take_lock(connection: sa.Connection, lock: int) -> None:
    """Hold an advisory lock of PostgreSQL until the transaction ends; in SQLite, do nothing."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))


def insert_on_conflict(
    connection: sa.Connection, table: sa.Table
) -> postgresql.Insert | sqlite.Insert:
    """Make an INSERT that may say what to do where its key is there already."""
    is_postgresql = connection.dialect.name == "postgresql"
    return postgresql.insert(table) if is_postgresql else sqlite.insert(table)


def key_batches(keys: Iterable[Key]) -> Iterator[list[Key]]:
    """Split keys into lists that one SQL statement can hold.

    >>> [len(batch) for batch in key_batches(range(900))]
    [400, 400, 100]
    """
    all_keys = list(keys)
    for start in range(0, len(all_keys), MAX_KEYS):
        yield all_keys[start : start + MAX_KEYS]


def unindexed(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a column of whole numbers as an expression that no index serves.

    SQLite keeps no statistics here. Of a list of keys it expects more rows than of a condition on
    the project, which nearly all rows may meet, and takes the index of that. Where one value is
    asked for in place of a list, an index on both columns serves, and this is not needed.
    """
    return column + 0


def advise(error: OperationalError, what: str) -> str:
    """Return the sentence for people: the cause, and what to do once it is over."""
    return f"The database cannot be used now ({error_message(error)}): {what} once that is over."


def error_message(error: BaseException) -> str:
    """Return the first line of the database's own message, without the SQL statement.

    >>> error_message(SQLAlchemyError("It shuts down.\\nMore about that."))
    'It shuts down.'
    """
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def _open(url: URL) -> tuple[sa.Engine, sa.Engine]:
    engine = _connect(url)
    try:
        with file_lock(url):
            _upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    if url.get_backend_name() == "sqlite":
        return engine, engine
    return engine, _connect(url, isolation_level="AUTOCOMMIT")  # connects at first use


def _connect(url: URL, **more: Any) -> sa.Engine:
    if url.get_backend_name() == "postgresql":
        # A database in SQL_ASCII says no encoding, and psycopg would return its texts as bytes.
        options = {"connect_timeout": str(_CONNECT_TIMEOUT_S), "client_encoding": "utf8"}
        url = url.update_query_dict({**options, **url.query})  # the settings' own win
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True, max_overflow=_MORE_CONNECTIONS, **more)
    # Writers that wait for each other hold a connection each: none may be missing for a reader.
    pool: dict[str, Any] = {} if _file(url) is None else {"max_overflow": -1}
    engine = sa.create_engine(url, connect_args={"timeout": _LOCK_TIMEOUT_S}, **pool)
    sa.event.listen(engine, "connect", _set_up_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def file_lock(url: URL) -> AbstractContextManager[object]:
    """Return a lock under which one process at a time opens an SQLite file; make its folder.

    Else SQLite refuses all others at once while one creates the file. For a database in memory and
    for PostgreSQL the lock does nothing.
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


def _upgrade(engine: sa.Engine) -> None:
    """Upgrade a database that is not up to date; others may write while this is checked."""
    with engine.connect() as connection:
        connection.execution_options(reads_only=True)
        if current_revision(connection) == revisions()[-1]:
            return
    with engine.begin() as connection:
        take_lock(connection, LOCK)  # two processes that start at once must not both upgrade
        _run_revisions(connection)


def _set_up_sqlite(connection: Any, _record: object) -> None:
    """Let readers work beside one writer, and let `_begin_sqlite` begin all transactions."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_sqlite(connection: sa.Connection) -> None:
    """Begin a transaction; one that may write takes the write lock at its beginning.

    There, SQLite lets it wait for other writers. After a first read, SQLite might refuse it.
    """
    reads_only = connection.get_execution_options().get("reads_only")
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


# ---- revisions -----------------------------------------------------------------------------------


@cache
def revisions() -> tuple[str, ...]:
    """Return the numbers of all revisions that this version knows, in ascending order.

    Read from the files' names: importing Alembic takes longer than opening a database.

    >>> revisions()[0]
    '0200'
    """
    files = (_MIGRATIONS / "versions").glob("[0-9]*_*.py")
    return tuple(sorted(file.name.partition("_")[0] for file in files))


def check_known(revision: str | None) -> None:
    """Raise `DatabaseRefused` for an unknown revision; None: made by a version before 0.2."""
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


def current_revision(connection: sa.Connection) -> str | None:
    """Return the revision of a database; None: it is empty."""
    inspector = sa.inspect(connection)
    if not inspector.has_table("alembic_version"):
        if inspector.has_table("jobs"):
            check_known(None)
        return None
    found = connection.execute(sa.text("SELECT max(version_num) FROM alembic_version")).scalar()
    if found is None:
        return None
    check_known(str(found))
    return str(found)


def _run_revisions(connection: sa.Connection) -> None:
    """Run the revisions that a database lacks, in the transaction that the connection is in."""
    before = current_revision(connection)
    if before == revisions()[-1]:
        return
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with _UPGRADING:
        command.upgrade(config, "head")
    if before is not None:
        after = current_revision(connection)
        log.info("The database is upgraded from revision %s to %s", before, after)
