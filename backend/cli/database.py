"""``clearclip-backend database``: upgrade, status, backup, restore."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from sqlalchemy.engine import URL

from backend.cli.options import Command, with_settings
from backend.database.backup import back_up
from backend.database.backup import restore as restore_backup
from backend.database.database import Database
from backend.database.migrations.revisions import revisions
from backend.settings import Settings


@click.group()
def database() -> None:
    """Upgrade, back up and restore the database of the backend.

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


@_command("upgrade")
def upgrade_database(database: Database) -> None:
    """Make the database, or bring it to the newest revision.

    A backend does so by itself when it starts.
    """
    before = database.revision()
    database.check()
    if before == revisions()[-1]:
        click.echo(f"{database.name} is up to date: it is at revision {before}.")
    else:
        click.echo(f"{database.name} is upgraded to revision {database.revision()}.")


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
    click.echo(
        f"{database.name} is {at}; the newest is {newest}. "
        "`clearclip-backend database upgrade` brings it there, and so does the next start."
    )


@_command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(database: Database, file: Path) -> None:
    """Copy the database to FILE, which must not exist; a backend may go on meanwhile.

    For PostgreSQL, it says which command to use.
    """
    if database.url.get_backend_name() == "postgresql":
        raise click.ClickException(
            "PostgreSQL makes its own backups: pg_dump --format=custom "
            f"--file={shlex.quote(str(file))} --dbname={_address(database)}"
        )
    back_up(database, file)
    click.echo(f"{database.name} is copied to {file}.")


@_command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore_database(database: Database, file: Path) -> None:
    """Replace what the database holds by the backup FILE.

    Stop the backends that use the database first. What it held is kept in a file beside it. A
    backup of an earlier version is upgraded when a backend starts.

    For PostgreSQL, it says which command to use.
    """
    if database.url.get_backend_name() == "postgresql":
        raise click.ClickException(
            "PostgreSQL restores its own backups: pg_restore --clean --if-exists "
            f"--single-transaction --dbname={_address(database)} {shlex.quote(str(file))}"
        )
    kept = restore_backup(database, file)
    click.echo(f"{database.name} holds what {file} held.")
    if kept is not None:
        click.echo(f"What it held before is in {kept}.")


def _address(database: Database) -> str:
    """Return the address of a PostgreSQL database for its own tools, quoted, without a password."""
    url = database.url
    query = {name: value for name, value in url.query.items() if "pass" not in name.lower()}
    shown = URL.create("postgresql", url.username, None, url.host, url.port, url.database, query)
    return shlex.quote(shown.render_as_string())
