"""What time does to leases, at once."""

from __future__ import annotations

import time

import backend.jobs.job_store  # noqa: F401  # defines a table
from backend.database.database import METADATA, Database


def end_leases(database: Database, owner: str) -> None:
    """Let all leases of an owner who died be over, as after half a minute."""
    with database.write() as connection:
        table = METADATA.tables["jobs"]
        mine = table.update().where(table.c.owner == owner)
        connection.execute(mine.values(leased_until=time.time() - 1))
