"""Let failures know their project, and whether their task has been predicted since."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns; failures that are there may be solved, which nothing tells."""
    op.add_column("failures", sa.Column("project", sa.Integer()))
    op.add_column(
        "failures", sa.Column("solved", sa.Float(), nullable=False, server_default=sa.text("0"))
    )
    op.create_index("ix_failures_task", "failures", ["task"])
