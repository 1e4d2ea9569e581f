"""Index annotations by kind, version and time in one: of two indexes, the wrong one was taken."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Replace two indexes by the one that serves the queries of both."""
    op.drop_index("ix_annotations_kind", "annotations")
    op.drop_index("ix_annotations_seen", "annotations")
    columns = ["project", "kind", "version", "created"]
    op.create_index("ix_annotations_kind_version", "annotations", columns)
