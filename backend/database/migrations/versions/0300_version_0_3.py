"""Change the tables for version 0.3."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0300"
down_revision = "0200"


def upgrade() -> None:
    """Add what is kept of tasks that Label Studio cannot serve."""
    op.add_column("polls", sa.Column("unserved", sa.Text(), nullable=False, server_default="{}"))
