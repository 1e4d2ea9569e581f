"""Change the tables for version 0.3: what the second use of a project needs."""

import sqlalchemy as sa
from alembic import op

revision = "0301"
down_revision = "0300"


def upgrade() -> None:
    """Count the deaths of all that is leased, as those of jobs."""
    for table in ("annotations", "learning_states", "polls", "runs"):
        op.add_column(table, sa.Column("at_work", sa.Text(), nullable=False, server_default="[]"))
        op.add_column(table, sa.Column("deaths", sa.Text(), nullable=False, server_default="{}"))
    op.drop_column("runs", "attempts")  # the deaths of its owners say it
