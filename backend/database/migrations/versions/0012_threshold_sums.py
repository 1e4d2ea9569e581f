"""Make the table of the sums over training examples, and the index by which these are counted.

The sums are added up when they are asked for first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0008"


def upgrade() -> None:
    """Make the table, and replace the index."""
    op.create_table(
        "threshold_sums",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("sums", sa.Text(), nullable=False),
    )
    op.drop_index("ix_lessons_project", "lessons")
    op.create_index("ix_lessons_annotation", "lessons", ["project", "model", "annotation"])
