"""Change the tables for version 0.3."""

import sqlalchemy as sa
from alembic import op

revision = "0300"
down_revision = "0200"


def upgrade() -> None:
    """Add experiments, reviews, and what is kept of tasks not served or that end the process."""
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

    op.create_table(
        "reviews",
        sa.Column("task", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("prediction", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("project", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("verdict", sa.String(8), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("reviewer", sa.Integer(), nullable=False),
        sa.Column("seat", sa.String(16), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("checked", sa.Integer(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False),
        sa.Column("due", sa.Float(), nullable=False),
        sa.Column("annotation", sa.BigInteger()),
        sa.Column("trouble", sa.Text(), nullable=False),
        sa.Index("ix_reviews_open", "open", "due"),
        sa.Index("ix_reviews_project", "project", "seat", "at"),
    )

    # the first poll finds the annotations that projects had when they were connected
    op.execute("UPDATE polls SET since = 0")
