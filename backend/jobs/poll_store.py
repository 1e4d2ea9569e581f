"""How far each connected project was polled for changes: one row for each project.

A poller leases a project that is due. It asks Label Studio for what has changed since the row's
high-water mark, and moves the mark only once all of that is kept::

    add ──> due ──> leased ──> polled     `finish` moves the mark
             ^        │           │
             └────────┴───────────┘       `fail` leaves it: Label Studio was away

Backends that share a database share the rows; the lease of a backend that dies ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, Connection, Float, Integer, Row, Table, Text, delete, select, update

from backend.database.database import METADATA, Database
from backend.database.leases import (
    RELEASED,
    is_free,
    is_owned_by,
    lease_columns,
    leased_to,
    renewed,
)

_POLLS: Final = Table(
    "polls",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    # on Label Studio's clock
    Column("since", Float, nullable=False),
    # on the database's clock
    Column("noted", Float, nullable=False, default=0.0),
    Column("walked", Float, nullable=False, default=0.0),
    Column("polled", Float, nullable=False, default=0.0),
    Column("due", Float, nullable=False, default=0.0, index=True),
    Column("tasks", Integer, nullable=False, default=0),
    Column("trouble", Text, nullable=False, default=""),
    *lease_columns(),
)

_ROW: Final = _POLLS.c

#: The advisory lock of PostgreSQL under which a poll is leased.
_LOCK: Final = 0xC1EA5011


@dataclass(frozen=True)
class Poll:
    """How far a project was polled. Times are in seconds since the epoch.

    Attributes:
        project: its id.
        since: the high-water mark, on Label Studio's clock: all changes up to it are kept.
        noted: when `since` was found to be the newest change.
        walked: when the last walk through all changes began that came to its end.
        polled: when the project was polled last without an error; 0: never.
        tasks: the number of the project's tasks at `noted`.
        trouble: why the last poll failed, in a sentence; empty where it did not.
    """

    project: int
    since: float
    noted: float = 0.0
    walked: float = 0.0
    polled: float = 0.0
    tasks: int = 0
    trouble: str = ""


class PollStore:
    """The polls in a database, for one backend.

    Args:
        database: where they are kept.
        owner: the name of this backend, see `backend.database.leases.new_owner`.

    >>> polls = PollStore(Database("sqlite://"), "worker")
    >>> polls.add(7, since=100.0)
    >>> polls.lease().since, polls.lease()
    (100.0, None)
    """

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._leased: set[int] = set()  # projects whose leases are renewed

    @property
    def now(self) -> float:
        """The time on the database's clock, in seconds since the epoch."""
        return self._database.clock()

    def add(self, project: int, since: float) -> None:
        """Add a project that is to be polled at once; one that is there stays as it is."""
        with self._database.write() as connection:
            if connection.dialect.name == "postgresql":
                from sqlalchemy.dialects.postgresql import insert
            else:
                from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
            row = {"project": project, "since": since}
            connection.execute(insert(_POLLS).values(row).on_conflict_do_nothing())

    def remove(self, project: int) -> None:
        """Forget a project that is gone or no longer connected."""
        self.let_go(project)
        with self._database.write() as connection:
            connection.execute(delete(_POLLS).where(_ROW.project == project))

    def list_polls(self) -> list[Poll]:
        """Return all polls, by ascending project."""
        with self._database.read() as connection:
            return [_poll(row) for row in connection.execute(select(_POLLS).order_by(_ROW.project))]

    def lease(self) -> Poll | None:
        """Lease the project that is due the longest; None where none is due."""
        now = self.now
        due = select(_POLLS).where(_ROW.due <= now, is_free(_POLLS, now)).order_by(_ROW.due)
        with self._database.read() as connection:  # most often nothing is due: no lock
            if connection.execute(due.limit(1)).first() is None:
                return None
        with self._database.write_exclusively(_LOCK) as connection:
            row = connection.execute(due.limit(1)).first()
            if row is None:
                return None
            leased = update(_POLLS).where(_ROW.project == row.project)
            connection.execute(leased.values(leased_to(self._owner, now)))
        self._leased.add(row.project)
        return _poll(row)

    def renew(self) -> None:
        """Renew the leases of this backend, but not those that it has let go."""
        for project in sorted(self._leased):
            with self._database.write() as connection:
                self._update_leased(connection, project, **renewed(self.now))

    def let_go(self, project: int) -> None:
        """Renew a lease no more, so that it ends by itself: for where the database is away."""
        self._leased.discard(project)

    def finish(self, poll: Poll, in_s: float) -> None:
        """Keep how far a project was polled, and end its lease.

        Nothing is kept where another backend has taken the lease over: it finds the same changes.

        Args:
            poll: the new values of all but `polled` and `trouble`.
            in_s: when it is due again, in seconds from now.
        """
        self.let_go(poll.project)
        values = {name: getattr(poll, name) for name in ("since", "noted", "walked", "tasks")}
        now = self.now
        ended = {"polled": now, "due": now + in_s, "trouble": "", **RELEASED}
        with self._database.write() as connection:
            self._update_leased(connection, poll.project, **values, **ended)

    def fail(self, project: int, trouble: str, in_s: float) -> None:
        """Keep why a project could not be polled, and end its lease; the mark stays."""
        self.let_go(project)
        ended = {"due": self.now + in_s, "trouble": trouble, **RELEASED}
        with self._database.write() as connection:
            self._update_leased(connection, project, **ended)

    def _update_leased(self, connection: Connection, project: int, **values: Any) -> None:
        """Change a row if it is leased here."""
        ours = (_ROW.project == project, is_owned_by(_POLLS, self._owner))
        connection.execute(update(_POLLS).where(*ours).values(values))


def _poll(row: Row[Any]) -> Poll:
    return Poll(row.project, row.since, row.noted, row.walked, row.polled, row.tasks, row.trouble)
