"""What time does to leases, at once."""

from __future__ import annotations

from backend.database.database import METADATA, Database


def end_leases(database: Database, owner: str | None = None, table: str = "jobs") -> None:
    """Let all leases of an owner who died be over, as after half a minute; None: everybody's."""
    rows = METADATA.tables[table]
    ended = rows.update().values(leased_until=0.0)
    with database.write() as connection:
        connection.execute(ended if owner is None else ended.where(rows.c.owner == owner))
