"""Check the device, and serve."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from backend.settings import Settings
from clearclip_core.clip.devices import choose_device, choose_precision


def check_device(settings: Settings) -> None:
    """Refuse a device or precision that this machine does not have.

    The check runs in a process of its own: CUDA that is initialized here does not survive the
    fork of the server.

    Raises:
        ValueError: this machine does not have the device or the precision.
    """
    with (
        suppress(BrokenProcessPool),  # the check has crashed: loading the model will report why
        ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool,
    ):
        pool.submit(_choose, settings.device, settings.precision).result()


def _choose(device: str, precision: str) -> None:
    choose_precision(precision, choose_device(device))


def run_gunicorn(settings: Settings) -> None:
    """Serve until a signal ends the process."""
    # gunicorn needs Unix, and takes time to import: only a server pays for it.
    from backend.web.gunicorn_app import GunicornApp

    GunicornApp(settings).run()
