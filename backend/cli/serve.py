"""``clearclip-backend serve``: serve the backend."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Final

import click

from backend.cli.options import configure, sentences, settings_options, stopped_by_signals
from backend.database.database import Database
from backend.errors import BackendError

#: How often a database that cannot be opened is tried again, in seconds.
RETRY_DELAY_S: Final = 10.0

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--wait",
    is_flag=True,
    help="Wait for a database that cannot be opened, instead of ending. For containers: one that "
    "ends is started again and again.",
)
@settings_options()
def serve(wait: bool, **given: str | None) -> None:
    """Serve the backend: one process, one model, a thread for each request."""
    settings = configure(given)
    with sentences():
        database = Database.from_settings(settings)
        if wait:
            wait_for_database(database)
        database.check()
        from backend.web import server  # takes time to import: only a server pays for it

        server.serve(settings)


def wait_for_database(database: Database, retry_delay_s: float = RETRY_DELAY_S) -> None:
    """Wait until the database can be opened, and log each reason why it cannot, once.

    Args:
        database: the database; it is upgraded where it is older.
        retry_delay_s: seconds between two tries.

    Raises:
        SystemExit: a signal has ended the wait.
    """
    stopping, said = threading.Event(), ""
    with stopped_by_signals(stopping):
        while not stopping.is_set():
            try:
                return database.check()
            except (BackendError, ValueError) as error:
                if str(error) != said:
                    said = str(error)
                    log.error("%s Trying again every %g s.", said, retry_delay_s)
                stopping.wait(retry_delay_s)
    sys.exit()
