"""Tell whether the database holds anything of a project, whichever table it stands in."""

from __future__ import annotations

from sqlalchemy import exists, or_, select

from backend.database.database import METADATA, Database


def has_rows(database: Database, project: int) -> bool:
    """Tell whether any table has a row of a project.

    All tables with a column `project` are asked in one statement, which ends at the first row.

    Args:
        database: the database.
        project: number of the project.
    """
    found = (
        exists().where(table.c.project == project)
        for table in METADATA.sorted_tables
        if "project" in table.c
    )
    with database.read() as connection:
        return bool(connection.scalar(select(or_(*found))))
