"""Make the first tables: jobs, failures, results, annotations, and what projects learn.

Releases before this revision made the same tables without a revision, and the earliest of them not
all. So each table is made only where it is missing, and one that is there is left as it is.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables that are missing."""
    there = set(sa.inspect(op.get_bind()).get_table_names())
    for table, make in _TABLES.items():
        if table not in there:
            make()


def _make_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("project", sa.Integer(), nullable=False, index=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("only", sa.String(16), nullable=False),
        sa.Column("view", sa.Integer()),
        sa.Column("limit", sa.Integer()),
        sa.Column("tasks", sa.Text()),
        sa.Column("scope", sa.Text()),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("total", sa.Integer()),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("worked_s", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("started", sa.Float()),
        sa.Column("finished", sa.Float()),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("leased_until", sa.Float(), nullable=False),
        sqlite_autoincrement=True,
    )


def _make_failures() -> None:
    op.create_table(
        "failures",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("job", sa.Integer(), nullable=False, index=True),
        sa.Column("task", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
    )


def _make_results() -> None:
    op.create_table(
        "results",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("task", sa.BigInteger(), nullable=False, index=True),
        sa.Column("project", sa.Integer(), index=True),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("entry", sa.LargeBinary()),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("begun", sa.Float(), nullable=False),
        sa.Column("changed", sa.Float(), nullable=False, index=True),
        sa.Column("due", sa.Float(), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("leased_until", sa.Float(), nullable=False),
    )


def _make_annotations() -> None:
    op.create_table(
        "annotations",
        sa.Column("annotation", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("project", sa.Integer(), nullable=False, index=True),
        sa.Column("marked", sa.Integer(), nullable=False),
        sa.Column("seen", sa.Integer(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False, index=True),
        sa.Column("untaught", sa.Integer(), nullable=False, index=True),
        sa.Column("due", sa.Float(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("leased_until", sa.Float(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("task", sa.BigInteger(), nullable=False, index=True),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("annotator", sa.Integer()),
        sa.Column("seconds", sa.Float()),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("changes", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
    )


def _make_lessons() -> None:
    op.create_table(
        "lessons",
        sa.Column("annotation", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("picture", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("project", sa.Integer(), nullable=False, index=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("paint", sa.Text(), nullable=False),
        sa.Column("learned", sa.Float(), nullable=False),
        sa.Column("example", sa.LargeBinary(), nullable=False),
    )


def _make_learned_versions() -> None:
    op.create_table(
        "learned_versions",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("better", sa.Integer(), nullable=False),
        sa.Column("annotations", sa.Integer(), nullable=False),
        sa.Column("pictures", sa.Integer(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("adaptation", sa.LargeBinary()),
    )


def _make_learners() -> None:
    op.create_table(
        "learners",
        sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("live", sa.Integer()),
        sa.Column("pinned", sa.Integer(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=False),
        sa.Column("due", sa.Float(), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("leased_until", sa.Float(), nullable=False),
    )


_TABLES = {
    "jobs": _make_jobs,
    "failures": _make_failures,
    "results": _make_results,
    "annotations": _make_annotations,
    "lessons": _make_lessons,
    "learned_versions": _make_learned_versions,
    "learners": _make_learners,
}
