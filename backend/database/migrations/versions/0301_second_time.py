"""Change the tables for version 0.3: what the second use of a project needs."""

import sqlalchemy as sa
from alembic import op

revision = "0301"
down_revision = "0300"


def upgrade() -> None:
    """Count the deaths of all that is leased, as those of jobs."""
    op.add_column("reviews", sa.Column("owner", sa.String(128), nullable=False, server_default=""))
    until = sa.Column("leased_until", sa.Float(), nullable=False, server_default="0")
    op.add_column("reviews", until)
    for table in ("annotations", "learning_states", "polls", "reviews", "runs"):
        op.add_column(table, sa.Column("at_work", sa.Text(), nullable=False, server_default="[]"))
        op.add_column(table, sa.Column("deaths", sa.Text(), nullable=False, server_default="{}"))

    # A backend of 0.2 that still runs asks for this column before it leases a run, and takes none:
    # it cannot make all that is asked for now. The deaths of a run's owners say what it said.
    op.drop_column("runs", "attempts")
    op.add_column("runs", sa.Column("needs", sa.String(8), nullable=False, server_default=""))
    op.execute(
        "UPDATE runs SET state = 'failed', owner = '', leased_until = 0, finished = created, "
        "reason = 'This version orders no tasks: Label Studio does, by Uniform Sampling.' "
        "WHERE kind = 'next-tasks' AND state NOT IN ('done', 'failed', 'cancelled')"
    )

    # nor does it take such a step for one from corrections
    op.execute("UPDATE learning_states SET asked = -1 WHERE asked = 2")

    # What an annotation has of labels that the labeling config no longer has, is found there.
    regions = sa.Column("regions", sa.Text(), nullable=False, server_default="{}")
    op.add_column("annotations", regions)

    # A project is set up by one press at a time.
    op.create_table(
        "set_ups", sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False)
    )
    for name, kind, default in (
        ("owner", sa.String(128), ""),
        ("leased_until", sa.Float(), "0"),
        ("at_work", sa.Text(), "[]"),
        ("deaths", sa.Text(), "{}"),
    ):
        op.add_column("set_ups", sa.Column(name, kind, nullable=False, server_default=default))

    # Verdicts are taken back in the background. Of those from before, an annotation may be there.
    for name in ("undo", "begun", "tries"):
        op.add_column("reviews", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE reviews SET begun = 1 WHERE verdict = 'good' AND checked = 0")

    op.add_column("reviews", sa.Column("person", sa.Text(), nullable=False, server_default=""))
    op.add_column("reviews", sa.Column("repair", sa.Text(), nullable=False, server_default="[]"))
    _add_scores()

    # the people whose annotations a project does not learn from: key -> name, as JSON
    left_out = sa.Column("left_out", sa.Text(), nullable=False, server_default="{}")
    op.add_column("learning_states", left_out)
    _add_next_pictures()

    # the tasks of a project that are still to be annotated; NULL: nobody has counted them
    op.add_column("polls", sa.Column("tasks_left", sa.Integer()))


def _add_scores() -> None:
    """Add the scores of predictions, which Label Studio lists only with a feature flag."""
    project = sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False)
    task = sa.Column("task", sa.BigInteger(), primary_key=True, autoincrement=False)
    version = sa.Column("version", sa.Text(), nullable=False)
    score = sa.Column("score", sa.Float(), nullable=False)
    at = sa.Column("at", sa.Float(), nullable=False)
    closed = sa.Column("closed", sa.Float())
    op.create_table("scores", project, task, version, score, at, closed)

    project = sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False)
    cursor = sa.Column("cursor", sa.BigInteger(), nullable=False)
    began = sa.Column("began", sa.Float(), nullable=False)
    ended = sa.Column("ended", sa.Float(), nullable=False)
    is_open = sa.Column("open", sa.Integer(), nullable=False)
    op.create_table("score_walks", project, cursor, began, ended, is_open)


def _add_next_pictures() -> None:
    """Add the pictures whose masks the newest corrections would change most."""
    project = sa.Column("project", sa.Integer(), primary_key=True, autoincrement=False)
    model = sa.Column("model", sa.String(64), primary_key=True)
    due = sa.Column("due", sa.Float(), nullable=False)
    newest = sa.Column("newest", sa.Integer(), nullable=False)
    changed = sa.Column("changed", sa.Integer(), nullable=False)
    pictures = sa.Column("pictures", sa.Text(), nullable=False)
    op.create_table("next_pictures", project, model, due, newest, changed, pictures)
