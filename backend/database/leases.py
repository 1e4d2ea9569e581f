"""Leases: an owner has a row of a table for a while, and another may take over where it died.

Such a row names its owner and the time at which the lease ends. An owner renews its leases while it
works, and lets them go when it is done. The clocks of all machines that share a database must agree
to within a fraction of `LEASE_S`.

A lease that is taken over, though its owner has not given it back, is a death of that owner. It is
counted in the row, at the tasks that the owner was at: one of them may be what ends the process. A
task at which `MOST_DEATHS` owners have died is left out from then on, and its work goes on.
"""

import logging
import os
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, overload

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from backend.database.database import LOCK, METADATA, Database, error_message
from backend.errors import TaskDeadly

log = logging.getLogger(__name__)

LEASE_S: Final = 30.0  # how long a lease lasts that is not renewed, in seconds

MOST_DEATHS: Final = 3  # deaths at a task, after which it is left out
_MOST_DEATHS_IN_ALL: Final = 9  # deaths at all tasks of a row, after which its work fails

NO_TASK: Final = 0  # in place of a task's id: the owner had named none that it was at

#: Task, or `NO_TASK` -> how many owners have died at it.
Deaths = Mapping[int, int]

#: Values of a row that is leased no longer: with its last owner's name, without one, and of one
#: whose work is done, whose owners' deaths do not count any more.
ENDED: Final = {"leased_until": 0.0, "at_work": "[]"}
RELEASED: Final = {"owner": "", **ENDED}
FINISHED: Final = {"deaths": "{}", **RELEASED}


class LeaseLost(RuntimeError):  # noqa: N818 -- what happened, in a word
    """Another owner has the lease by now: stop, there is nothing to tidy up."""


# ---- owners ----------------------------------------------------------------------------------


def new_owner() -> str:
    """Return a unique name for an owner of leases: machine, process and a random word.

    >>> new_owner().split(":")[1] == str(os.getpid()), new_owner() == new_owner()
    (True, False)
    """
    return f"{socket.gethostname()[:80]}:{os.getpid()}:{secrets.token_hex(4)}"


def has_died(owner: str) -> bool:
    """Return whether an owner was a process of this machine that has ended.

    False for a process of another machine, which cannot be looked up.

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


# ---- columns, conditions and values -------------------------------------------------------------


def lease_columns() -> tuple[sa.Column[Any], ...]:
    """Make the columns of a table whose rows are leased."""
    return (
        sa.Column("owner", sa.String(128), nullable=False, default=""),
        sa.Column("leased_until", sa.Float, nullable=False, default=0.0),
        _json_column("at_work", "[]"),  # the ids of the tasks that the owner is at
        _json_column("deaths", "{}"),  # `Deaths`
    )


def _json_column(name: str, empty: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=False, default=empty, server_default=empty)


def is_leased(table: sa.FromClause, now: float) -> sa.ColumnElement[bool]:
    """Match rows whose lease has not ended.

    One that lasts longer than any does was made before the clock was set back.
    """
    return table.c.leased_until.between(now, now + 2 * LEASE_S)


@overload
def is_due(due: float, now: float, longest_s: float) -> bool: ...
@overload
def is_due(
    due: sa.ColumnElement[float], now: float, longest_s: float | sa.ColumnElement[float]
) -> sa.ColumnElement[bool]: ...
def is_due(due: Any, now: float, longest_s: Any) -> Any:
    """Return whether a time has come, or match the rows whose time has come.

    No time lies further ahead than `longest_s`. One that lies twice as far was made before the
    clock was set back, and is due.

    >>> is_due(5.0, 6.0, 10.0), is_due(7.0, 6.0, 10.0), is_due(3600.0, 6.0, 10.0)
    (True, False, True)
    """
    return (due <= now) | (due > now + 2 * longest_s)


def renewed(now: float) -> dict[str, float]:
    """Make the values of a row whose lease is renewed."""
    return {"leased_until": now + LEASE_S}


# ---- deaths ----------------------------------------------------------------------------------


def deadly(task: int) -> str:
    """Return the sentence about a task that is left out, for people."""
    return (
        f"The backend has ended {MOST_DEATHS} times while it worked on task {task}: its picture "
        "may need more memory than there is. See the log, and start it again to try it once more."
    )


def is_hopeless(deaths: Deaths) -> bool:
    """Return whether to give a row's work up: leaving tasks out has not helped, or cannot.

    >>> is_hopeless({5: 3, 8: 3}), is_hopeless({NO_TASK: 3}), is_hopeless({5: 3, 8: 3, 9: 3})
    (False, True, True)
    """
    return deaths.get(NO_TASK, 0) >= MOST_DEATHS or sum(deaths.values()) >= _MOST_DEATHS_IN_ALL


def read_deaths(text: str) -> dict[int, int]:
    """Read the column of that name."""
    return msgspec.json.decode(text, type=dict[int, int])


def write_tasks(tasks: Iterable[int]) -> str:
    """Return the value of the column ``at_work``."""
    return msgspec.json.encode([*tasks]).decode()


def end_all(database: Database, owner: str) -> None:
    """End all leases of an owner that stops in order: none of them is a death.

    Raises:
        SQLAlchemyError: the database is away; the leases end by themselves.
    """
    for table in METADATA.sorted_tables:
        if "leased_until" in table.c:
            leased = sa.update(table).where(table.c.owner == owner, table.c.leased_until > 0)
            database.execute(leased.values(ENDED))


# ---- the leases of an owner ------------------------------------------------------------------

#: Finds rows to lease, with their primary key, of those that a condition leaves free.
Find = Callable[[sa.Connection, sa.ColumnElement[bool]], Sequence[sa.Row[Any]]]

#: Row, and the deaths of its owners -> values that it gets as it is leased.
Change = Callable[[sa.Row[Any], Deaths], dict[str, Any]]


class Leases:
    """The leases that an owner has of a table's rows, by an advisory lock; threads may share it."""

    def __init__(self, database: Database, table: sa.Table, owner: str, lock: int = LOCK) -> None:
        self._database = database
        self._table = table
        self._owner = owner
        self._lock = lock
        self._held: dict[tuple[Any, ...], Deaths] = {}  # by primary keys

    def take(
        self, wanted: sa.Select[Any] | Find, change: Change = lambda _row, _deaths: {}
    ) -> Sequence[sa.Row[Any]]:
        """Lease all wanted rows that are free; most often there is none, and nobody waits."""
        now = self._database.clock()
        free = sa.not_(is_leased(self._table, now))
        with self._database.read() as connection:
            if not _find(connection, wanted, free):
                return ()

        taken: dict[tuple[Any, ...], Deaths] = {}
        with self._database.write_exclusively(self._lock) as connection:
            rows = _find(connection, wanted, free)
            for row in rows:
                key = self._key(row)
                taken[key] = deaths = self._count_deaths(connection, now, *key)
                values = {
                    "owner": self._owner,
                    "at_work": "[]",
                    "deaths": msgspec.json.encode(deaths).decode(),
                    **renewed(now),
                    **change(row, deaths),
                }
                connection.execute(self._update(*key).values(values))
        self._held |= taken
        return rows

    def _count_deaths(self, connection: sa.Connection, now: float, *key: Any) -> Deaths:
        """Return the deaths at a row, with that of the owner whose lease is taken over, if any."""
        its = self._table.c
        query = sa.select(its.owner, its.leased_until, its.at_work, its.deaths)
        row = connection.execute(query.where(*self._is(*key))).one()
        deaths = Counter(read_deaths(row.deaths))

        # A lease of ours has ended while the database was away; one that lasts was not renewed
        # since the clock was set back.
        if row.owner not in ("", self._owner) and 0 < row.leased_until <= now:
            tasks = msgspec.json.decode(row.at_work, type=list[int]) or [NO_TASK]
            deaths.update(tasks)
            log.warning("%s has ended at work on %s %s", row.owner, self._table.name, key)
        return deaths

    def begin(self, task: int, *key: Any) -> None:
        """Note the task that the owner of a lease is at from now on, or `NO_TASK`.

        Raises:
            TaskDeadly: too many owners have died at it: leave it out.
        """
        if task and self._held.get(key, {}).get(task, 0) >= MOST_DEATHS:
            raise TaskDeadly(deadly(task))
        tasks = write_tasks([task] if task else [])
        try:
            with self._database.write() as connection:
                self.change(connection, *key, at_work=tasks)
        except SQLAlchemyError as error:  # the work is what matters
            log.warning("The task at work is not noted: %s", error_message(error))

    def change(self, connection: sa.Connection, *key: Any, **values: Any) -> bool:
        """Change a row that the owner has leased; return whether it has, even if that has ended."""
        ours = self._update(*key).where(self._table.c.owner == self._owner)
        return bool(connection.execute(ours.values(values)).rowcount)

    def let_go(self, *key: Any) -> None:
        """Renew a lease no more: it ends by itself, also where the database is away."""
        self._held.pop(key, None)

    def renew(self) -> None:
        """Renew the leases that are held for another `LEASE_S`."""
        for key in tuple(self._held):
            with self._database.write_exclusively(self._lock) as connection:
                self.change(connection, *key, **renewed(self._database.clock()))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the leases from a thread while the block runs, for who has no worker."""
        over = threading.Event()

        def keep() -> None:
            while not over.wait(LEASE_S / 3):
                with suppress(SQLAlchemyError):  # it may be back before the lease ends
                    self.renew()

        keeper = threading.Thread(target=keep, name=f"leases-{self._table.name}", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            over.set()
            keeper.join()

    def _key(self, row: sa.Row[Any]) -> tuple[Any, ...]:
        return tuple(row._mapping[column.name] for column in self._table.primary_key)

    def _update(self, *key: Any) -> sa.Update:
        return sa.update(self._table).where(*self._is(*key))

    def _is(self, *key: Any) -> list[sa.ColumnElement[bool]]:
        return [column == value for column, value in zip(self._table.primary_key, key, strict=True)]


def _find(
    connection: sa.Connection, wanted: sa.Select[Any] | Find, free: sa.ColumnElement[bool]
) -> Sequence[sa.Row[Any]]:
    if isinstance(wanted, sa.Select):
        return connection.execute(wanted.where(free)).all()
    return wanted(connection, free)
