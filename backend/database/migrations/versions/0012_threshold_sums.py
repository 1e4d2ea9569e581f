"""Make the sums over training examples and their index; keep lists of tasks uncompressed.

The sums are added up when they are asked for first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0008"


def upgrade() -> None:
    """Make the table, replace the index, and change how PostgreSQL keeps lists of tasks."""
    op.create_table(
        "threshold_sums",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("sums", sa.Text(), nullable=False),
    )
    op.drop_index("ix_lessons_project", "lessons")
    op.create_index("ix_lessons_annotation", "lessons", ["project", "model", "annotation"])
    if op.get_bind().dialect.name == "postgresql":
        for column in (
            "tasks",
            "scope",
        ):  # compressing a million ids takes longer than writing them
            op.execute(f"ALTER TABLE job_tasks ALTER COLUMN {column} SET STORAGE EXTERNAL")
