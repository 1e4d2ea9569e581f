"""Run the WSGI application: one process, one model, a thread for each request.

gunicorn starts the process, starts it anew where it crashes, and stops it; waitress reads and
writes. Of gunicorn's own workers, the one with threads keeps a thread for each connection that has
begun to send or that is written to, so that some clients can take all of them.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.workers.base import Worker
from waitress import wasyncore

from backend.inference.engine import Engine
from backend.settings import Settings
from backend.telemetry.logs import logging_config
from backend.web.app import create_app
from backend.web.connections import MAX_CONNECTIONS, Server
from backend.web.dispatcher import Dispatcher
from backend.web.handover import Handover, start_acceptor

#: The longest time after which the loop looks whether it is to end, in seconds.
_LOOP_S = 0.5

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
        self.cfg.set("worker_class", LoopWorker)
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
        self.engine, self.metrics = engine, app.extensions["metrics"]
        return app


class LoopWorker(Worker):  # type: ignore[misc]
    """Serve with the loop of `backend.web.connections` under gunicorn's supervision."""

    alive: bool

    def init_process(self) -> None:
        """Prepare the process, before it serves."""
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        _allow_files(4 * MAX_CONNECTIONS)
        # Before the application is loaded, as that starts threads.
        listening = [one.sock for one in self.sockets]
        self._link, self._acceptor = start_acceptor(listening, self.app.settings)
        super().init_process()

    def run(self) -> None:
        """Serve until a signal ends it, and then for ``graceful_timeout`` what has begun."""
        settings: Settings = self.app.settings
        self._watched: dict[int, Any] = {}
        dispatcher = Dispatcher(settings.threads)
        self._servers = [
            Server(self.wsgi, settings, one.sock, self._watched, dispatcher) for one in self.sockets
        ]
        engine, metrics = self.app.engine, self.app.metrics
        self._handover = Handover(
            self._link,
            self._acceptor,
            self._servers,
            self._watched,
            lambda: engine.status.state,
            lambda: metrics.request("/health", "GET", 200, 0.0),
        )
        while self.alive:
            self._serve_once()
            self.alive = self.alive and self.ppid == os.getppid()
        self._handover.end()
        for server in self._servers:
            server.stop_accepting()
        end = time.monotonic() + self.cfg.graceful_timeout
        while time.monotonic() < end and any(server.is_busy for server in self._servers):
            self._serve_once()
        dispatcher.shutdown()

    def _serve_once(self) -> None:
        self.notify()
        self._handover.report()
        for server in self._servers:
            server.keep_limits()
        wasyncore.loop(_LOOP_S, use_poll=True, map=self._watched, count=1)


def _allow_files(count: int) -> None:
    """Raise the number of files that this process may have open, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
