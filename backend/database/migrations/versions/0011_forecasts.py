"""Make the table of forecasts: how many hours of annotation projects still take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "forecasts",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("annotations", sa.Integer(), nullable=False),
        sa.Column("due", sa.Float(), nullable=False),
        sa.Column("figures", sa.Text(), nullable=False),
    )
