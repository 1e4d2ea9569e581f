"""Run revisions for Alembic, on the connection that `backend.database.database` hands over."""

from alembic import context


def migrate() -> None:
    """Run the revisions that are asked for, in the transaction that the connection is in."""
    context.configure(connection=context.config.attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()


if __name__ == "env_py":  # the name that Alembic gives this file when it runs it
    migrate()
