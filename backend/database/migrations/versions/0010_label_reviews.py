"""Make the tables of reviews of annotations, and of annotations that people confirmed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "label_reviews",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("finished", sa.Float(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
    )
    op.create_table(
        "confirmed_annotations",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("annotation", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("updated", sa.Float(), nullable=False),
    )
