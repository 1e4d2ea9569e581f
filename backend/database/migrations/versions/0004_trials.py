"""Make the tables of trials: what versions do after they went live, and annotations to trust."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "fitted_pictures",
        *_project_and_model(),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("pictures", sa.Text(), nullable=False),
    )
    op.create_table(
        "trials",
        *_project_and_model(),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("before", sa.Integer()),
        sa.Column("since", sa.Float(), nullable=False),
    )
    op.create_table(
        "trial_pictures",
        *_project_and_model(),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("picture", sa.String(64), primary_key=True),
        sa.Column("annotation", sa.BigInteger(), nullable=False),
        sa.Column("from_before", sa.Float()),
        sa.Column("from_words", sa.Float(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
    )
    op.create_table(
        "rollbacks",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("project", sa.Integer(), nullable=False, index=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("target", sa.Integer()),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "trusted_annotations",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("annotation", sa.BigInteger(), primary_key=True, autoincrement=False),
    )


def _project_and_model() -> tuple[sa.Column[int], sa.Column[str]]:
    return (
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(64), primary_key=True),
    )
