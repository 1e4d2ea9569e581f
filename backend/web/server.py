"""Serve the WSGI application in one process with waitress.

It listens at once and answers ``/health``, while the application is made: importing torch alone
takes seconds, and CUDA does not survive a fork.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import SQLAlchemyError
from waitress.server import create_server
from werkzeug.wrappers import Request

from backend.errors import BackendError, UnknownName
from backend.settings import Settings
from backend.web.middleware.errors import describe_health, reason_phrase
from backend.web.middleware.guards import SECURITY_HEADERS, HostNames, read_proxy_headers
from backend.web.request_slots import RequestSlots

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Flask

log = logging.getLogger(__name__)

#: Connections at the same time; each may need three files.
_MAX_CONNECTIONS: Final = 512
#: Bytes of a body, and of an answer that nobody has read, that a connection keeps in memory.
_IN_MEMORY: Final = 1 << 17
#: Bytes of unread answers from which on a connection's next request waits: clients may send
#: hundreds of requests at once and read nothing.
_MAX_UNREAD: Final = 1 << 20
#: The server takes bodies of so many times MAX_BODY_MB, so that the application can say what is
#: wrong with one that is too large; Label Studio shows nobody the reason, but the dashboard does.
_BODY_MARGIN: Final = 4
#: Seconds after which a connection is closed that sends nothing, or reads nothing of its answer.
_QUIET_S: Final = 60
#: Requests that may wait while the application is made.
_MAX_WAITING: Final = 64
#: How long a request that has begun may still take when the server stops, in seconds.
_GRACE_S: Final = 5.0
#: How long a thread keeps the interpreter while others wait, in seconds; a tenth of Python's
#: default lets ``/health`` have it sooner.
_SWITCH_INTERVAL_S: Final = 0.0005

#: Paths that monitoring asks, which is answered at once.
_NOT_READY: Final = ("/ready", "/metrics")
#: Label Studio gives up on ``/setup`` after 3 s. Before, it gets a sentence that it shows.
_LONGEST_WAIT_S: Final = {"/setup": 2.5}
_WAIT: Final = "The backend is starting: try again in a moment."


def run_server(settings: Settings, listening: Callable[[], None] = lambda: None) -> None:
    """Serve until a signal ends it; what has begun has 5 s to end.

    The process ends with status 1 where the application cannot be made; the log says why.

    Raises:
        ValueError: the address to listen on cannot be had.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    app = StartingApp(
        lambda: make_app(settings), settings, lambda: os.kill(os.getpid(), signal.SIGTERM)
    )
    try:
        server = create_server(app, **_options(settings))
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        reason = error.strerror or error
        raise ValueError(f"HOST, PORT: cannot listen on {address}: {reason}.") from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux ends connections whose answers nobody reads
        unread = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _QUIET_S * 1000)
        server.adj.socket_options = [*server.adj.socket_options, unread]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _end(app))
    log.info("Listening on http://%s:%d", settings.host, settings.port)
    listening()
    app.start()
    server.run()  # until `_end`; then it waits for the requests that have begun
    app.stop()
    logging.shutdown()
    os._exit(int(bool(app.failure)))  # taking torch apart takes the interpreter seconds


def _options(settings: Settings) -> dict[str, Any]:
    """Return the options of waitress."""
    return {
        "host": settings.host,
        "port": settings.port,
        "ident": "",
        "threads": RequestSlots(settings.threads).threads,
        "connection_limit": _MAX_CONNECTIONS,
        "channel_timeout": _QUIET_S,
        "cleanup_interval": _QUIET_S // 2,
        "max_request_header_size": 1 << 16,
        "max_request_body_size": _BODY_MARGIN * (settings.max_body_mb << 20),
        "inbuf_overflow": _IN_MEMORY,
        "outbuf_overflow": _IN_MEMORY,
        "outbuf_high_watermark": _MAX_UNREAD,
        "channel_request_lookahead": 1,  # notices that a client has gone
        "asyncore_use_poll": True,
        "log_socket_errors": False,
        "clear_untrusted_proxy_headers": False,  # the application reads those of trusted ones
    }


def _end(app: StartingApp) -> None:
    """End the server's loop, and the process soon, whatever it waits for."""
    if app.is_starting:
        os._exit(0)  # a thread that imports torch while the interpreter ends would crash
    last = threading.Timer(_GRACE_S, os._exit, [int(bool(app.failure))])
    last.daemon = True
    last.start()
    raise SystemExit


def check_device(settings: Settings) -> None:
    """Refuse a device or precision that this machine does not have.

    Raises:
        ValueError: this machine does not have the device or the precision.
    """
    from clearclip_core.clip.devices import choose_device, choose_precision

    choose_precision(settings.precision, choose_device(settings.device))


def make_app(settings: Settings) -> tuple[Flask, Callable[[], None]]:
    """Make the application, with its engine and its worker started.

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


class StartingApp:
    """A WSGI application that hands requests on to another one, once that is made.

    Until then ``/health`` says that the process is up, ``/ready`` and ``/metrics`` that it is not
    ready. Other requests wait for as long as a prediction may take, ``/setup`` for as long as Label
    Studio waits for it.

    Args:
        make: makes the application, and a function that ends it; it may take long.
        settings: the model's name, the longest wait, and the names of the backend.
        on_failure: called where the application cannot be made.

    Attributes:
        failure: why the application could not be made, in a sentence; empty until then.
    """

    def __init__(
        self,
        make: Callable[[], tuple[WSGIApplication, Callable[[], None]]],
        settings: Settings,
        on_failure: Callable[[], None],
    ) -> None:
        self._make = make
        self._on_failure = on_failure
        self._model = settings.model
        self._deadline_s = settings.predict_deadline_s
        self._names = HostNames(settings)
        self._starting = read_proxy_headers(self._answer_while_starting, settings)
        self._app: WSGIApplication | None = None
        self._stop: Callable[[], None] = lambda: None
        self._waiting = threading.BoundedSemaphore(_MAX_WAITING)
        self._is_over = threading.Event()
        self.failure = ""

    def start(self) -> None:
        """Make the application in a thread."""
        threading.Thread(target=self._run, name="start", daemon=True).start()

    def stop(self) -> None:
        """End the application, if it was made."""
        self._stop()

    @property
    def is_starting(self) -> bool:
        """Whether the application is being made."""
        return not self._is_over.is_set()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        return (self._app or self._starting)(environ, start_response)

    def _answer_while_starting(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        try:
            self._names.check(Request(environ))
        except UnknownName as error:
            return _refuse(start_response, error.http_status, str(error))
        path = environ.get("PATH_INFO", "")
        if path == "/health":
            return _answer(start_response, "200 OK", describe_health(self._model, "loading"))
        if path not in _NOT_READY and self._waiting.acquire(blocking=False):
            self._is_over.wait(min(self._deadline_s, _LONGEST_WAIT_S.get(path, self._deadline_s)))
            self._waiting.release()
        if self._app is None:
            return _refuse(start_response, 503, self.failure or _WAIT, retry_after_s=5)
        return self._app(environ, start_response)

    def _run(self) -> None:
        try:
            self._app, self._stop = self._make()
        except (BackendError, SQLAlchemyError, ValueError) as error:
            self.failure = str(error)
            log.error("%s", error)
        except Exception as error:
            self.failure = f"Unexpected {type(error).__name__}: see the backend's log."
            log.exception("The backend cannot start")
        self._is_over.set()
        if self.failure:
            self._on_failure()


def _refuse(
    start_response: StartResponse, status: int, sentence: str, retry_after_s: int = 0
) -> list[bytes]:
    line = f"{status} {reason_phrase(sentence)}"
    return _answer(start_response, line, {"error": sentence}, retry_after_s)


def _answer(
    start_response: StartResponse, status: str, value: dict[str, Any], retry_after_s: int = 0
) -> list[bytes]:
    body = json.dumps(value, separators=(",", ":")).encode()
    headers = {**SECURITY_HEADERS, "Content-Type": "application/json"}
    headers["Content-Length"] = str(len(body))
    if retry_after_s:
        headers["Retry-After"] = str(retry_after_s)
    start_response(status, list(headers.items()))
    return [body]
