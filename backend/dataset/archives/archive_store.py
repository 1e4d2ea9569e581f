"""The archives that people have asked for, in the shared database.

The owner that has leased an archive makes it, and renews the lease. When the owner dies, another
one makes the archive anew. Its file is on the machine of its owner.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    Row,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)

from backend.database.database import LOCK, METADATA, Database
from backend.database.leases import (
    LeaseLost,
    ended,
    is_free,
    is_owned_by,
    lease_columns,
    leased_to,
    renewed,
)
from backend.dataset.archives.archive_request import ArchiveRequest
from backend.dataset.archives.dataset_archive import OVER, DatasetArchive
from backend.errors import ArchiveNotFound, Busy

#: The most archives that wait or are being made.
MAX_UNFINISHED: Final = 10

#: How many skipped tasks are kept; the file has all.
_SKIPPED_KEPT: Final = 100

_ARCHIVES: Final = Table(
    "dataset_archives",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", Integer, nullable=False, index=True),
    Column("request", Text, nullable=False),  # JSON, see `ArchiveRequest`
    Column("state", String(16), nullable=False, index=True),
    Column("folder", String(32), nullable=False),
    Column("done", Integer, nullable=False, default=0),
    Column("total", Integer),
    Column("reason", Text, nullable=False, default=""),
    Column("report", Text, nullable=False, default="{}"),  # JSON
    Column("size_bytes", BigInteger, nullable=False, default=0),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    *lease_columns(),
    sqlite_autoincrement=True,
)


class ArchiveStore:
    """The table of archives of a database.

    Args:
        database: any number of stores, threads and processes may share it.

    >>> store = ArchiveStore(Database("sqlite://"))  # in memory
    >>> asked = store.request(ArchiveRequest(7))
    >>> store.request(ArchiveRequest(7)).id == asked.id, store.lease("worker").state
    (True, 'running')
    >>> store.finish(asked.id, "worker", size_bytes=5).state, store.lease("worker")
    ('done', None)
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    # ---- requests of people ----------------------------------------------------------------------

    def request(self, request: ArchiveRequest) -> DatasetArchive:
        """Queue an archive, unless an equal one waits or is being made: return that then.

        Raises:
            Busy: too many wait.
        """
        text = json.dumps(request.to_json(), sort_keys=True)
        unfinished = select(_ARCHIVES).where(_ARCHIVES.c.state.not_in(OVER))
        with self.database.write_exclusively(LOCK) as connection:
            rows = connection.execute(unfinished).all()
            equal = next((row for row in rows if row.request == text), None)
            if equal is not None:
                return _archive(equal)
            if len(rows) >= MAX_UNFINISHED:
                raise Busy(f"{len(rows)} data sets wait already: try again when one is done.")
            statement = insert(_ARCHIVES).values(
                project=request.project,
                request=text,
                state="queued",
                folder=secrets.token_hex(8),
                created=self.database.clock(),
            )
            key = connection.execute(statement).inserted_primary_key
            assert key is not None
            return _get(connection, key[0])

    def list_archives(self, project: int | None = None, limit: int = 100) -> list[DatasetArchive]:
        """Return the newest archives, of one project or of all, newest first."""
        query = select(_ARCHIVES).order_by(_ARCHIVES.c.id.desc()).limit(limit)
        if project is not None:
            query = query.where(_ARCHIVES.c.project == project)
        with self.database.read() as connection:
            return [_archive(row) for row in connection.execute(query)]

    def get(self, archive: int) -> DatasetArchive:
        """Return one archive.

        Raises:
            ArchiveNotFound: there is none of that number.
        """
        with self.database.read() as connection:
            return _get(connection, archive)

    def delete(self, archive: int) -> DatasetArchive:
        """Delete an archive's row, and return what it was; who makes it loses the lease.

        Raises:
            ArchiveNotFound: there is none of that number.
        """
        with self.database.write_exclusively(LOCK) as connection:
            found = _get(connection, archive)
            connection.execute(delete(_ARCHIVES).where(_ARCHIVES.c.id == archive))
            return found

    # ---- work under a lease ----------------------------------------------------------------------

    def lease(self, owner: str) -> DatasetArchive | None:
        """Lease the oldest archive that waits, or whose owner has died; None where none does."""
        now = self.database.clock()
        query = select(_ARCHIVES.c.id, _ARCHIVES.c.started).where(
            _ARCHIVES.c.state.not_in(OVER), is_free(_ARCHIVES, now)
        )
        oldest = query.order_by(_ARCHIVES.c.id).limit(1)
        with self.database.read() as connection:  # most often nothing waits: no lock
            if connection.execute(oldest).first() is None:
                return None
        with self.database.write_exclusively(LOCK) as connection:
            row = connection.execute(oldest).first()
            if row is None:
                return None
            started = now if row.started is None else row.started
            return _change(
                connection, row.id, state="running", started=started, **leased_to(owner, now)
            )

    def advance(self, archive: int, owner: str, done: int, total: int | None) -> None:
        """Tell how many tasks of how many were read, and renew the lease.

        Raises:
            LeaseLost: the archive was deleted, or another owner has the lease.
        """
        with self.database.write_exclusively(LOCK) as connection:
            _check_owner(connection, archive, owner)
            _change(connection, archive, done=done, total=total, **renewed(self.database.clock()))

    def renew(self, archive: int, owner: str) -> None:
        """Renew the lease of an archive, if the owner has it still."""
        statement = update(_ARCHIVES).where(
            is_owned_by(_ARCHIVES, owner),
            _ARCHIVES.c.id == archive,
            _ARCHIVES.c.state == "running",
        )
        with self.database.write() as connection:
            connection.execute(statement.values(renewed(self.database.clock())))

    def release(self, archive: int, owner: str) -> None:
        """End the lease of an archive that is not done, so that it is made later.

        Raises:
            LeaseLost: the archive was deleted, or another owner has the lease.
        """
        with self.database.write_exclusively(LOCK) as connection:
            _check_owner(connection, archive, owner)
            _change(connection, archive, state="queued", **ended())

    def finish(
        self,
        archive: int,
        owner: str,
        *,
        reason: str = "",
        report: Mapping[str, Any] | None = None,
        size_bytes: int = 0,
    ) -> DatasetArchive:
        """Finish an archive: done, or failed where there is a reason.

        Raises:
            LeaseLost: the archive was deleted, or another owner has the lease.
        """
        told = dict(report or {})
        if "skipped" in told:
            told |= {
                "skipped": told["skipped"][:_SKIPPED_KEPT],
                "skipped_count": len(told["skipped"]),
            }
        with self.database.write_exclusively(LOCK) as connection:
            _check_owner(connection, archive, owner)
            return _change(
                connection,
                archive,
                state="failed" if reason else "done",
                reason=reason,
                report=json.dumps(told),
                size_bytes=size_bytes,
                finished=self.database.clock(),
                **ended(),
            )

    def take_old(self, before: float, max_bytes: int) -> list[DatasetArchive]:
        """Delete the rows of archives that are too old, and of the oldest of too many.

        Args:
            before: those that were finished before are too old.
            max_bytes: of all archives together.

        Returns:
            What was deleted.
        """
        sizes = func.sum(_ARCHIVES.c.size_bytes).over(order_by=_ARCHIVES.c.id.desc())
        query = select(_ARCHIVES, sizes.label("with_newer")).where(_ARCHIVES.c.state.in_(OVER))
        with self.database.write_exclusively(LOCK) as connection:
            found = [
                _archive(row)
                for row in connection.execute(query)
                if row.finished < before or row.with_newer > max_bytes
            ]
            gone = [each.id for each in found]
            connection.execute(delete(_ARCHIVES).where(_ARCHIVES.c.id.in_(gone)))
        return found


def _get(connection: Connection, archive: int) -> DatasetArchive:
    row = connection.execute(select(_ARCHIVES).where(_ARCHIVES.c.id == archive)).first()
    if row is None:
        raise ArchiveNotFound(f"There is no data set {archive}; it may have been deleted.")
    return _archive(row)


def _change(connection: Connection, archive: int, **changes: Any) -> DatasetArchive:
    connection.execute(update(_ARCHIVES).where(_ARCHIVES.c.id == archive).values(changes))
    return _get(connection, archive)


def _check_owner(connection: Connection, archive: int, owner: str) -> None:
    query = select(_ARCHIVES.c.owner).where(_ARCHIVES.c.id == archive)
    found = connection.execute(query).scalar()
    if found != owner:
        raise LeaseLost(f"Data set {archive} was deleted, or {found} makes it.")


def _archive(row: Row[Any]) -> DatasetArchive:
    return DatasetArchive(
        id=row.id,
        request=ArchiveRequest.parse(json.loads(row.request)),
        state=row.state,
        folder=row.folder,
        owner=row.owner,
        done=row.done,
        total=row.total,
        reason=row.reason,
        report=json.loads(row.report),
        size_bytes=row.size_bytes,
        created=row.created,
        started=row.started,
        finished=row.finished,
    )
