"""``clearclip-backend serve``: serve the backend."""

import logging
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Final

import click

from backend.cli.options import (
    check_model,
    configure,
    sentences,
    settings_options,
    stopped_by_signals,
)
from backend.database.database import Database
from backend.label_studio.set_up import own_address
from backend.settings import Settings, foreign_settings

RETRY_DELAY_S: Final = 10.0  # how often a database that cannot be opened is tried again, in seconds

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--wait",
    is_flag=True,
    help="Wait for a database that cannot be opened, and for weights that are not there, instead "
    "of ending. For containers.",
)
@settings_options()
def serve(wait: bool, **given: str | None) -> None:
    """Serve the backend for Label Studio."""
    settings = configure(given)
    with sentences():
        _check_host(settings)
        database = Database.from_settings(settings)
        if wait:
            wait_for_database(database)
        database.check()
        check_model(settings, may_come_later=wait, answers_clicks=True)
        from backend.web import server  # takes time to import: only a server pays for it

        server.run_server(settings, lambda: greet(settings))


def _check_host(settings: Settings) -> None:
    try:
        socket.getaddrinfo(settings.host, settings.port)
    except OSError as error:
        raise ValueError(
            f"HOST: {settings.host} is no address to listen on ({error.strerror}). Conda's "
            "compilers set HOST for themselves: unset it, or give --host 127.0.0.1."
        ) from None


def greet(settings: Settings) -> None:
    """Tell people where the backend is, what it serves and what is missing; not in JSON logs."""
    if settings.log_format == "json":
        return
    lines = {
        "Connect": f"clearclip-backend connect --all, or {own_address(settings)} in a project of "
        "Label Studio, under Settings, Model",
        "Dashboard": own_address(settings, is_here=True),
        "Model": f"{settings.encoders}, {settings.method}; it is loading{_fetched(settings)}",
        "Clicks": f"answered by {settings.click_model}" if settings.click_model else "",
        "Missing": f"\n{' ' * 11}".join(missing(settings)),
        "Ignored": f"\n{' ' * 11}".join(foreign_settings()),
    }
    click.echo(
        "".join(f"{name:<10} {text}\n" for name, text in lines.items() if text), err=True, nl=False
    )


def _fetched(settings: Settings) -> str:
    from clearclip_core import missing_weights

    is_fetched = missing_weights(
        settings.model, settings.model_dir, settings.second_model, settings.click_model
    )
    return ". Its weights are downloaded first" if is_fetched else ""


def missing(settings: Settings) -> Iterator[str]:
    """Yield what is not set, and what does not work without it, in sentences."""
    if settings.label_studio_url is None:
        yield "LABEL_STUDIO_URL is not set: Label Studio has to tell its address as it connects."
    if settings.label_studio_api_key is None:
        yield "LABEL_STUDIO_API_KEY is not set: no jobs, no report, no learning."
    if settings.host not in ("127.0.0.1", "localhost", "::1") and settings.basic_auth_user is None:
        yield "BASIC_AUTH_USER is not set: everybody who reaches this address may use it."


def wait_for_database(database: Database, retry_delay_s: float = RETRY_DELAY_S) -> None:
    """Wait until the database can be opened and upgraded; log each reason why it cannot, once.

    Where another version has made it, `DatabaseRefused` is raised: to wait helps nobody. A signal
    ends the wait, and the process.
    """
    stopping, said = threading.Event(), ""
    with stopped_by_signals(stopping):
        while not stopping.is_set():
            try:
                return database.check()
            except ValueError as error:
                if str(error) != said:
                    said = str(error)
                    log.error("%s Trying again every %g s.", said, retry_delay_s)
                stopping.wait(retry_delay_s)
    sys.exit()
