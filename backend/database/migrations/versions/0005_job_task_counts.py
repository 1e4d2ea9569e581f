"""Keep how many tasks a job lists, so that pages need not read the list."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column, and count the lists that are there."""
    op.add_column("jobs", sa.Column("task_count", sa.Integer()))
    jobs = sa.table("jobs", *(sa.column(name) for name in ("id", "tasks", "task_count")))
    connection = op.get_bind()
    named = sa.select(jobs.c.id).where(jobs.c.tasks.is_not(None))
    for job in connection.execute(named).scalars().all():
        ids = connection.execute(sa.select(jobs.c.tasks).where(jobs.c.id == job)).scalar_one()
        connection.execute(
            sa.update(jobs).where(jobs.c.id == job).values(task_count=len(json.loads(ids)))
        )
