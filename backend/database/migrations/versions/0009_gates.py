"""Make the tables of acceptance gates and of the tasks that they were asked about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "gates",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("version", sa.Text(), primary_key=True),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.Column("annotations", sa.Integer(), nullable=False),
        sa.Column("unscored", sa.Integer(), nullable=False),
        sa.Column("gate", sa.Text()),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("alarm", sa.Float()),
    )
    op.create_table(
        "gate_tasks",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("task", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("scores", sa.Text(), nullable=False),
        sa.Column("passes", sa.Integer(), nullable=False),
        sa.Column("audited", sa.Integer(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False),
        sa.Column("accepted", sa.Integer(), nullable=False),
    )
    op.create_index("ix_gate_tasks_passes", "gate_tasks", ["project", "version", "passes"])
