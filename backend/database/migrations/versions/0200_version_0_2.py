"""Make the tables of version 0.2, the first that later versions upgrade."""

import sqlalchemy as sa
from alembic import op

revision = "0200"
down_revision = None

_NEWEST_FIRST: sa.ColumnClause[str] = sa.literal_column("annotation DESC")


def upgrade() -> None:
    """Make all tables and indexes."""
    op.create_table(
        "annotation_sums",
        sa.Column("project", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("grouping", sa.String(8), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sums", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "grouping", "name"),
    )

    op.create_table(
        "annotations",
        sa.Column("annotation", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("project", sa.Integer(), nullable=False),
        sa.Column("marked", sa.Integer(), nullable=False),
        sa.Column("seen", sa.Integer(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False),
        sa.Column("untaught", sa.Integer(), nullable=False),
        sa.Column("due", sa.Float(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("leased_until", sa.Float(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("task", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("annotator", sa.Integer()),
        sa.Column("seconds", sa.Float()),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("changes", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("annotation"),
    )
    op.create_index(
        "ix_annotations_kind_version", "annotations", ["project", "kind", "version", "created"]
    )
    op.create_index("ix_annotations_updated", "annotations", ["project", "updated", "kind", "task"])
    op.create_index("ix_annotations_open_due", "annotations", ["open", "due", _NEWEST_FIRST])
    op.create_index(
        "ix_annotations_open_project", "annotations", ["open", "project", "due", _NEWEST_FIRST]
    )
    op.create_index(
        "ix_annotations_task_project", "annotations", ["task", "project", "leased_until"]
    )
    op.create_index(
        "ix_annotations_untaught_due", "annotations", ["untaught", "due", _NEWEST_FIRST]
    )
    op.create_index(
        "ix_annotations_untaught_project",
        "annotations",
        ["untaught", "project", "due", _NEWEST_FIRST],
    )

    op.create_table(
        "confirmed_annotations",
        sa.Column("project", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("annotation", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project", "annotation"),
    )

    op.create_table(
        "failures",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("task", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("project", sa.Integer()),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_failures_job", "failures", ["job"])
    op.create_index("ix_failures_task", "failures", ["task"])

    op.create_table(
        "job_tasks",
        sa.Column("job", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tasks", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job"),
    )

    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("project", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("only", sa.String(16), nullable=False),
        sa.Column("view", sa.Integer()),
        sa.Column("limit", sa.Integer()),
        sa.Column("state", sa.String(16), nullable=False),
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
        sa.Column("withdraws", sa.Integer()),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("leased_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_project", "jobs", ["project"])
    op.create_index("ix_jobs_state", "jobs", ["state"])
    op.create_index("ix_jobs_withdraws", "jobs", ["withdraws"])

    op.create_table(
        "learned_versions",
        sa.Column("project", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("adaptation", sa.LargeBinary()),
        sa.Column("pictures", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "model", "number"),
    )

    op.create_table(
        "learning_states",
        sa.Column("project", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("live", sa.Integer()),
        sa.Column("newest", sa.Integer(), nullable=False),
        sa.Column("decided", sa.Integer(), nullable=False),
        sa.Column("pinned", sa.Integer(), nullable=False),
        sa.Column("adapt", sa.String(8)),
        sa.Column("as_words", sa.Text(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=False),
        sa.Column("due", sa.Float(), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("leased_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project", "model"),
    )

    op.create_table(
        "polls",
        sa.Column("project", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("noted", sa.Float(), nullable=False),
        sa.Column("walked", sa.Float(), nullable=False),
        sa.Column("polled", sa.Float(), nullable=False),
        sa.Column("due", sa.Float(), nullable=False),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("leased_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project"),
    )
    op.create_index("ix_polls_due", "polls", ["due"])

    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("project", sa.Integer(), nullable=False),
        sa.Column("asked", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("report", sa.Text()),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("finished", sa.Float()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("leased_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_runs_project_kind", "runs", ["project", "kind"])
    op.create_index("ix_runs_state", "runs", ["state"])

    op.create_table(
        "training_examples",
        sa.Column("annotation", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("picture", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("project", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("example", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("annotation", "model", "picture"),
    )
    op.create_index(
        "ix_training_examples_annotation",
        "training_examples",
        ["project", "model", "annotation"],
    )
