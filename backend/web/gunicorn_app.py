"""Run the WSGI application under gunicorn: one process, one model, a thread for each request."""

from __future__ import annotations

import sys
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import ThreadWorker

from backend.inference.engine import Engine
from backend.network.time_limit import Clock, TimeLimit
from backend.settings import Settings
from backend.telemetry.logs import logging_config
from backend.web.app import create_app

#: Threads on top of those that answer: they wait for requests that are slow to arrive.
_THREADS_FOR_SLOW_REQUESTS = 64

#: How long a thread keeps the interpreter while others wait, in seconds. Answers to /health and
#: /setup need it seldom, but then at once: a tenth of Python's default lets them have it sooner.
_SWITCH_INTERVAL_S = 0.0005


class GunicornApp(BaseApplication):  # type: ignore[misc]
    """Serve with one worker process, which loads the model after the fork, as CUDA requires."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings  # `load_config` and the worker read it
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options."""
        self.cfg.set("bind", f"{self.settings.host}:{self.settings.port}")
        self.cfg.set("workers", 1)
        self.cfg.set("worker_class", TimeLimitedWorker)
        self.cfg.set("threads", self.settings.threads + _THREADS_FOR_SLOW_REQUESTS)
        self.cfg.set("timeout", 0)  # a prediction may take as long as it takes
        self.cfg.set("graceful_timeout", 5)
        self.cfg.set("loglevel", self.settings.log_level.lower())
        self.cfg.set("logconfig_dict", logging_config(self.settings))
        if "control_socket_disable" in self.cfg.settings:  # since gunicorn 25
            self.cfg.set("control_socket_disable", True)

    def load(self) -> Any:
        """Make the WSGI application in the worker process, and start its engine and worker."""
        engine = Engine.from_settings(self.settings)
        engine.start()
        app = create_app(self.settings, engine)
        worker = app.extensions["worker"]
        worker.start()

        def stop(_server: Any, _process: Any) -> None:
            worker.stop()
            engine.stop()
            engine.join()

        self.cfg.set("worker_exit", stop)
        return app


class TimeLimitedWorker(ThreadWorker):  # type: ignore[misc]
    """Limit how long the head of a request may take to arrive: ``REQUEST_TIMEOUT_S``.

    Without a limit, a few connections that never send anything would take all threads. The limit
    for the body is in `backend.web.middleware.body`.
    """

    def init_process(self) -> None:
        """Prepare the process, before it serves."""
        self.clock = Clock()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        super().init_process()

    def handle(self, conn: Any) -> Any:
        """Read a request from a connection, and answer it."""
        settings: Settings = self.app.settings
        with TimeLimit(settings.request_timeout_s, self.clock) as conn.time_limit:
            conn.time_limit.hold(conn.sock)
            return super().handle(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request whose head has arrived."""
        conn.time_limit.lift()
        return super().handle_request(req, conn)
