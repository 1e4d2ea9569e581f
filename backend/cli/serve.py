"""``clearclip-backend serve``: serve the backend."""

from __future__ import annotations

import click

from backend.cli.options import configure, sentences, settings_options
from backend.services import Services
from backend.web.server import check_device, run_gunicorn


@click.command()
@settings_options()
def serve(**given: str | None) -> None:
    """Serve the backend: one process, one model, a thread for each request."""
    settings = configure(given)
    with sentences():  # before the fork, and before anything listens
        Services(settings).check()
        check_device(settings)
    run_gunicorn(settings)
