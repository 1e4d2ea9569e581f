"""Change the tables for version 0.3: what the second use of a project needs."""

revision = "0301"
down_revision = "0300"


def upgrade() -> None:
    """Add nothing yet."""
