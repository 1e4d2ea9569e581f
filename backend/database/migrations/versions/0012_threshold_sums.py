"""Make the table of the sums over training examples; they are added up when they are asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0008"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "threshold_sums",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("sums", sa.Text(), nullable=False),
    )
