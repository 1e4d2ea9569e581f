"""``clearclip-backend database``: status, backup, restore."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from backend.cli.options import Command, with_settings
from backend.database.backup import back_up
from backend.database.backup import restore as restore_backup
from backend.database.database import Database, revisions
from backend.settings import Settings


@click.group()
def database() -> None:
    """Back up and restore the database of the backend.

    Give it the DATABASE_URL or the MODEL_DIR that the backend has.
    """


def _command(name: str) -> Callable[[Command], Command]:
    """Make a command of `database` whose first argument is the database of the settings."""

    def add(command: Command) -> Command:
        @with_settings("model_dir", "database_url")
        @wraps(command)
        def run(settings: Settings, **own: Any) -> None:
            command(Database.from_settings(settings), **own)

        return database.command(name)(run)

    return add


@_command("status")
def show_revision(database: Database) -> None:
    """Say at which revision the database is, and change nothing.

    The exit status is 1 where another version has made it, or it cannot be read.
    """
    newest, revision = revisions()[-1], database.revision()
    if revision == newest:
        click.echo(f"{database.name} is up to date: it is at revision {revision}.")
        return
    at = "not there yet" if revision is None else f"at revision {revision}"
    click.echo(f"{database.name} is {at}; the newest is {newest}. The next start brings it there.")


@_command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(database: Database, file: Path) -> None:
    """Copy an SQLite database to FILE, which must not exist; a backend may go on meanwhile.

    PostgreSQL has pg_dump for that.
    """
    back_up(database, file)
    click.echo(f"{database.name} is copied to {file}.")


@_command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore_database(database: Database, file: Path) -> None:
    """Replace what the database holds by the backup FILE.

    Stop the backends that use the database first. What it held is kept in a file beside it. A
    backup of an earlier version is upgraded when a backend starts. PostgreSQL has pg_restore.
    """
    kept = restore_backup(database, file)
    click.echo(f"{database.name} holds what {file} held.")
    if kept is not None:
        click.echo(f"What it held before is in {kept}.")
