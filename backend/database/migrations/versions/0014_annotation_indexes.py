"""Index annotations by what is asked for and their project: each project pays for its own."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Replace four indexes by three that hold the project too; two others begin with it."""
    for column in ("project", "open", "untaught", "task"):
        op.drop_index(f"ix_annotations_{column}", "annotations")
    op.create_index("ix_annotations_open_project", "annotations", ["open", "project"])
    op.create_index("ix_annotations_untaught_project", "annotations", ["untaught", "project"])
    task = ["task", "project", "leased_until"]
    op.create_index("ix_annotations_task_project", "annotations", task)
