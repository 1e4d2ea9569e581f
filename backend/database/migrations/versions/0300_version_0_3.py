"""Change the tables for version 0.3."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0300"
down_revision = "0200"


def upgrade() -> None:
    """Add experiments, and what is kept of tasks that cannot be served or end the process."""
    op.add_column("polls", sa.Column("unserved", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("jobs", sa.Column("at_work", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("jobs", sa.Column("deaths", sa.Text(), nullable=False, server_default="{}"))
    predicted = sa.Column("predicted", sa.Float(), nullable=False, server_default="0")
    op.add_column("annotations", predicted)
    op.create_table(
        "experiments",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("began", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float()),
        sa.Column("withheld", sa.Text(), nullable=False),
    )
    # the first poll finds the annotations that projects had when they were connected
    op.execute("UPDATE polls SET since = 0")
