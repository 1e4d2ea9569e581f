"""Make the application in the process that serves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backend.settings import Settings

if TYPE_CHECKING:
    from flask import Flask


def check_device(settings: Settings) -> None:
    """Refuse a device or precision that this machine does not have.

    Raises:
        ValueError: this machine does not have the device or the precision.
    """
    from clearclip_core.clip.devices import choose_device, choose_precision

    choose_precision(settings.precision, choose_device(settings.device))


def make_app(settings: Settings) -> tuple[Flask, Callable[[], None]]:
    """Make the application, with its engine and its worker started, in the process that serves.

    CUDA does not survive a fork, and importing torch takes seconds: call it after the server
    listens.

    Returns:
        The application, and a function that ends what was started.

    Raises:
        ValueError: the settings name a model, a device or a precision that is not there.
    """
    from backend.inference.engine import Engine
    from backend.web.app import create_app

    check_device(settings)
    engine = Engine.from_settings(settings)
    app = create_app(settings, engine)
    worker = app.extensions["worker"]
    engine.start()
    worker.start()

    def stop() -> None:
        worker.stop()
        engine.stop()
        engine.join()

    return app, stop
