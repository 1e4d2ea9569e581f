"""Make the table of tasks that were chosen to be corrected next."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "next_tasks",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("finished", sa.Float(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
    )
