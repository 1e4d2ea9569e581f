"""Make the table of polls: how far each connected project was polled for changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "polls",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("noted", sa.Float(), nullable=False),
        sa.Column("walked", sa.Float(), nullable=False),
        sa.Column("polled", sa.Float(), nullable=False),
        sa.Column("due", sa.Float(), nullable=False, index=True),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("leased_until", sa.Float(), nullable=False),
    )
