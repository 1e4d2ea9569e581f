"""Leases: an owner has a row of a table for a while, and another may take over where it died.

Such a row names its owner and the time at which the lease ends. An owner renews its leases while it
works, and lets them go when it is done. The clocks of all machines that share a database must agree
to within a fraction of `LEASE_S`.
"""

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from backend.database.database import LOCK, Database

LEASE_S: Final = 30.0  # how long a lease lasts that is not renewed, in seconds

#: Values of a row that is leased no longer: with its last owner's name, and without one.
ENDED: Final = {"leased_until": 0.0}
RELEASED: Final = {"owner": "", **ENDED}


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


def lease_columns() -> tuple[sa.Column[Any], sa.Column[Any]]:
    """Make the two columns of a table whose rows are leased."""
    return (
        sa.Column("owner", sa.String(128), nullable=False, default=""),
        sa.Column("leased_until", sa.Float, nullable=False, default=0.0),
    )


def is_leased(table: sa.FromClause, now: float) -> sa.ColumnElement[bool]:
    """Match rows whose lease has not ended.

    One that lasts longer than any does was made before the clock was set back.
    """
    return table.c.leased_until.between(now, now + 2 * LEASE_S)


def renewed(now: float) -> dict[str, float]:
    """Make the values of a row whose lease is renewed."""
    return {"leased_until": now + LEASE_S}


# ---- the leases of an owner ------------------------------------------------------------------

#: Finds rows to lease, with their primary key, of those that a condition leaves free.
Find = Callable[[sa.Connection, sa.ColumnElement[bool]], Sequence[sa.Row[Any]]]

Change = Callable[[sa.Row[Any]], dict[str, Any]]  # row -> values that it gets as it is leased


class Leases:
    """The leases that an owner has of a table's rows, by an advisory lock; threads may share it."""

    def __init__(self, database: Database, table: sa.Table, owner: str, lock: int = LOCK) -> None:
        self._database = database
        self._table = table
        self._owner = owner
        self._lock = lock
        self._held: set[tuple[Any, ...]] = set()  # primary keys

    def take(
        self, wanted: sa.Select[Any] | Find, change: Change = lambda _: {}
    ) -> Sequence[sa.Row[Any]]:
        """Lease all wanted rows that are free; most often there is none, and nobody waits."""
        now = self._database.clock()
        free = sa.not_(is_leased(self._table, now))
        with self._database.read() as connection:
            if not _find(connection, wanted, free):
                return ()
        with self._database.write_exclusively(self._lock) as connection:
            rows = _find(connection, wanted, free)
            for row in rows:
                values = {"owner": self._owner, **renewed(now), **change(row)}
                connection.execute(self._update(*self._key(row)).values(values))
        self._held.update(map(self._key, rows))
        return rows

    def change(self, connection: sa.Connection, *key: Any, **values: Any) -> bool:
        """Change a row that the owner has leased; return whether it has, even if that has ended."""
        ours = self._update(*key).where(self._table.c.owner == self._owner)
        return bool(connection.execute(ours.values(values)).rowcount)

    def let_go(self, *key: Any) -> None:
        """Renew a lease no more: it ends by itself, also where the database is away."""
        self._held.discard(key)

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

    def _update(self, *key: Any) -> Any:
        its = (column == value for column, value in zip(self._table.primary_key, key, strict=True))
        return sa.update(self._table).where(*its)


def _find(
    connection: sa.Connection, wanted: sa.Select[Any] | Find, free: sa.ColumnElement[bool]
) -> Sequence[sa.Row[Any]]:
    if isinstance(wanted, sa.Select):
        return connection.execute(wanted.where(free)).all()
    return wanted(connection, free)
