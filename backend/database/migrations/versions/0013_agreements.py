"""Make the table of reports on the agreement of annotators."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "agreements",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("finished", sa.Float(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
    )
