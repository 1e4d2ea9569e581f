"""Run the WSGI application: one process, one model, a thread for each request.

gunicorn starts the process, starts it anew where it crashes, and stops it; waitress reads and
writes. Of gunicorn's own workers, the one with threads keeps a thread for each connection that has
begun to send or that is written to, so that some clients can take all of them.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker
from waitress import wasyncore

from backend.inference.model_status import ModelState
from backend.settings import Settings
from backend.telemetry.logs import logging_config
from backend.web.connections import MAX_CONNECTIONS, Server
from backend.web.dispatcher import Dispatcher
from backend.web.handover import Handover, start_acceptor
from backend.web.server import make_app
from backend.web.starting_app import StartingApp

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger(__name__)

#: The longest time after which the loop looks whether it is to end, in seconds.
_LOOP_S = 0.5

#: How long a thread keeps the interpreter while others wait, in seconds. Answers to /health and
#: /setup need it seldom, but then at once: a tenth of Python's default lets them have it sooner.
_SWITCH_INTERVAL_S = 0.0005


class GunicornApp(BaseApplication):  # type: ignore[misc]
    """Serve with one worker process, which loads the model after the fork, as CUDA requires."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings  # `load_config` and the worker read it
        self.starting = StartingApp(self._make, settings)
        self._stop: Callable[[], None] = lambda: None
        self._app: Flask | None = None
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
        """Return a WSGI application that answers at once, and make the true one in a thread."""
        self.cfg.set("worker_exit", self._end)
        self.starting.start()
        return self.starting

    def _make(self) -> Any:
        app, self._stop = make_app(self.settings)
        self._app = app
        return app

    def state(self) -> ModelState:
        """Return the state of the model."""
        if self._app is None:
            return "loading"
        state: ModelState = self._app.extensions["engine"].status.state
        return state

    def count_health(self) -> None:
        """Count an answer to ``/health`` that another process has given."""
        if self._app is not None:
            self._app.extensions["metrics"].request("/health", "GET", 200, 0.0)

    def _end(self, _server: Any, _process: Any) -> None:
        if self.starting.is_starting:
            os._exit(0)  # a thread that imports torch while the interpreter ends would crash
        self._stop()


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
        self._handover = Handover(
            self._link,
            self._acceptor,
            self._servers,
            self._watched,
            self.app.state,
            self.app.count_health,
        )
        while self.alive and not self.app.starting.failure:
            self._serve_once()
            self.alive = self.alive and self.ppid == os.getppid()
        self._handover.end()
        for server in self._servers:
            server.stop_accepting()
        self._serve_once()  # reads what the acceptor has left
        end = time.monotonic() + self.cfg.graceful_timeout
        while time.monotonic() < end and any(server.is_busy for server in self._servers):
            self._serve_once()
        dispatcher.shutdown()
        if failure := self.app.starting.failure:
            log.error("%s", failure)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

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
