"""Leases: an owner has a row of a table for a while, and another may take over where it died.

Such a row names its owner and the time at which the lease ends. The owner renews the lease while
it works. An owner that is done, or that has died, renews it no more, and the lease ends. The clocks
of all machines that share a database must agree to within a fraction of `LEASE_S`.

The functions make columns, conditions and values for SQLAlchemy; the stores make the statements.
"""

from __future__ import annotations

import os
import secrets
import socket
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Float, FromClause, String, not_

#: How long a lease lasts that is not renewed, in seconds.
LEASE_S: Final = 30.0

#: Values of a row that nobody has leased.
RELEASED: Final = {"owner": "", "leased_until": 0.0}


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


def lease_columns() -> tuple[Column[Any], Column[Any]]:
    """Make the two columns of a table whose rows are leased."""
    return (
        Column("owner", String(128), nullable=False, default=""),
        Column("leased_until", Float, nullable=False, default=0.0),
    )


def is_free(table: FromClause, now: float) -> ColumnElement[bool]:
    """Match rows that nobody has leased, or whose lease has ended."""
    return not_(is_leased(table, now))


def is_leased(table: FromClause, now: float) -> ColumnElement[bool]:
    """Match rows whose lease has not ended.

    One that lasts longer than any does was made before the clock was set back.
    """
    return table.c.leased_until.between(now, now + 2 * LEASE_S)


def is_owned_by(table: FromClause, owner: str) -> ColumnElement[bool]:
    """Match rows that an owner has leased, even if the lease has ended and nobody took over."""
    return table.c.owner == owner


def leased_to(owner: str, now: float) -> dict[str, Any]:
    """Make the values of a row that an owner leases."""
    return {"owner": owner, **renewed(now)}


def renewed(now: float) -> dict[str, float]:
    """Make the values of a row whose lease is renewed."""
    return {"leased_until": now + LEASE_S}


def ended() -> dict[str, float]:
    """Make the values of a row whose lease ends now, and which still names its last owner."""
    return {"leased_until": 0.0}
