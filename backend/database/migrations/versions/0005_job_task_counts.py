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
    jobs = sa.table(
        "jobs",
        *(sa.column(name) for name in ("id", "tasks", "scope", "task_count")),
    )
    connection = op.get_bind()
    listed = sa.func.coalesce(jobs.c.scope, jobs.c.tasks)
    with_list = connection.execute(sa.select(jobs.c.id).where(listed.is_not(None))).scalars().all()
    for job in with_list:
        ids = connection.execute(sa.select(listed).where(jobs.c.id == job)).scalar_one()
        connection.execute(
            sa.update(jobs).where(jobs.c.id == job).values(task_count=len(json.loads(ids)))
        )
