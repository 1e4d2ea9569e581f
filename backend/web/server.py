"""The server: gunicorn with one process, one model, and a thread for each request."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any

from backend.inference.engine import Engine
from backend.network.time_limit import Clock, TimeLimit
from backend.settings import Settings
from backend.telemetry.logs import logging_config
from backend.web.app import create_app
from clearclip_core.clip.devices import choose_device, choose_precision

#: Threads beside those that answer: they wait for requests that are slow to arrive.
_THREADS_FOR_THE_SLOW = 64

_SWITCH_S = 0.0005


def check_device(settings: Settings) -> None:
    """Refuse a device or precision that this machine lacks.

    It is asked in a process of its own: CUDA that is asked here does not survive the fork.

    Raises:
        ValueError: it lacks them.
    """
    with (
        suppress(BrokenProcessPool),  # where that cannot be asked, the load will tell
        ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as other,
    ):
        other.submit(_choose, settings.device, settings.precision).result()


def _choose(device: str, precision: str) -> None:
    choose_precision(precision, choose_device(device))


def run_gunicorn(settings: Settings) -> None:
    """Serve until a signal ends it."""
    from gunicorn.app.base import BaseApplication
    from gunicorn.workers.gthread import ThreadWorker

    class Worker(ThreadWorker):  # type: ignore[misc]
        """Waits for the head of a request as long as the settings say, and not for ever.

        A few connections that never say anything would take all threads otherwise. Of the body,
        `create_app` says how long it may take.
        """

        def init_process(self) -> None:
            self.clock = Clock()
            # Threads hand each other the interpreter sooner than by default: answers to /health
            # and /setup need it now and then only, but then at once.
            sys.setswitchinterval(_SWITCH_S)
            super().init_process()

        def handle(self, conn: Any) -> Any:
            with TimeLimit(settings.request_timeout_s, self.clock) as conn.time_limit:
                conn.time_limit.hold(conn.sock)
                return super().handle(conn)

        def handle_request(self, req: Any, conn: Any) -> Any:
            conn.time_limit.lift()
            return super().handle_request(req, conn)

    class Server(BaseApplication):  # type: ignore[misc]
        """One worker: the model is loaded there, after the fork, which CUDA asks for."""

        def load_config(self) -> None:
            self.cfg.set("bind", f"{settings.host}:{settings.port}")
            self.cfg.set("workers", 1)
            self.cfg.set("worker_class", Worker)
            self.cfg.set("threads", settings.threads + _THREADS_FOR_THE_SLOW)
            self.cfg.set("timeout", 0)  # a prediction may take as long as it takes
            self.cfg.set("graceful_timeout", 5)
            self.cfg.set("loglevel", settings.log_level.lower())
            self.cfg.set("logconfig_dict", logging_config(settings))
            if "control_socket_disable" in self.cfg.settings:  # since gunicorn 25
                self.cfg.set("control_socket_disable", True)

        def load(self) -> Any:
            engine = Engine.from_settings(settings)
            engine.start()
            app = create_app(settings, engine)
            worker = app.extensions["worker"]
            worker.start()

            def end(_server: Any, _process: Any) -> None:
                worker.stop()
                engine.stop()
                engine.join()

            self.cfg.set("worker_exit", end)
            return app

    Server().run()
