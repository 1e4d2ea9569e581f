"""Change the tables for version 0.3."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0300"
down_revision = "0200"


def upgrade() -> None:
    """Add what is kept of tasks that Label Studio cannot serve, or at which a process died."""
    op.add_column("polls", sa.Column("unserved", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("jobs", sa.Column("at_work", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("jobs", sa.Column("deaths", sa.Text(), nullable=False, server_default="{}"))
    # the first poll finds the annotations that projects had when they were connected
    op.execute("UPDATE polls SET since = 0")
