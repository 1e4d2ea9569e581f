"""Index what is leased in the order in which it is due, and withdrawals by their job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Put the time that a row is due at behind what its lease asks for."""
    for name in ("ix_results_project", "ix_results_state"):
        op.drop_index(name, "results")
    of_project = sa.text("project IS NOT NULL")
    op.create_index(
        "ix_results_state_due",
        "results",
        ["state", "due"],
        sqlite_where=of_project,
        postgresql_where=of_project,
    )
    op.create_index("ix_results_project_due", "results", ["project", "state", "version", "due"])
    newest_first = sa.text("annotation DESC")
    for flag in ("open", "untaught"):
        due, project = (f"ix_annotations_{flag}_{end}" for end in ("due", "project"))
        op.drop_index(project, "annotations")
        op.create_index(due, "annotations", [flag, "due", newest_first])
        op.create_index(project, "annotations", [flag, "project", "due", newest_first])
    op.create_index("ix_jobs_withdraws", "jobs", ["withdraws"])
