"""Serve the WSGI application in one process with waitress.

It listens at once and answers ``/health``, while the application is made: importing torch alone
takes seconds, and CUDA does not survive a fork.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import SQLAlchemyError
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer, create_server

from backend.errors import BackendError
from backend.settings import Settings
from backend.web.lanes import Lanes
from backend.web.middleware.auth import Gate
from backend.web.middleware.errors import describe_health, json_response, reason_phrase
from backend.web.middleware.guards import SECURITY_HEADERS, RequestSlots, read_proxy_headers

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Flask

log = logging.getLogger(__name__)

_MAX_CONNECTIONS: Final = 512  # connections at the same time; each may need three files
#: Bytes of a body, and of an answer that nobody has read, that a connection keeps in memory.
_IN_MEMORY: Final = 1 << 17
#: Bytes of unread answers from which on a connection's next request waits: clients may send
#: hundreds of requests at once and read nothing.
_MAX_UNREAD: Final = 1 << 20
#: Seconds after which a connection is closed that sends nothing, or reads nothing of its answer.
_QUIET_S: Final = 60
#: How long a request that has begun may still take when the server stops, in seconds.
_GRACE_S: Final = 5.0
#: How long a thread keeps the interpreter while others wait, in seconds; a tenth of Python's
#: default lets ``/health`` have it sooner.
_SWITCH_INTERVAL_S: Final = 0.0005

#: What all but /health is answered until the application is made.
STARTING: Final = "The backend is starting: try again in a moment."


#: Path, headers as waitress names them, address of the client -> bytes of the body that are taken.
BodyLimit = Callable[[str, Mapping[str, str], str], int]


def body_limit(gate: Gate, settings: Settings) -> BodyLimit:
    """Return what says how many bytes of a request's body are taken."""
    read_proxies = read_proxy_headers(lambda *_: (), settings)

    def limit(path: str, headers: Mapping[str, str], address: str) -> int:
        environ: WSGIEnvironment = {f"HTTP_{name}": value for name, value in headers.items()}
        environ |= {"PATH_INFO": path, "REMOTE_ADDR": address}
        read_proxies(environ, lambda *_: lambda _: None)
        return gate.body_limit(environ)

    return limit


class _Request(HTTPRequestParser):  # type: ignore[misc]
    """Reads a request; of one whose body is not taken, the head alone.

    The application answers it as any other: it misses the password, or finds the body too large.
    """

    body_rcv: Any

    def __init__(self, adj: object, connection: _Connection) -> None:
        super().__init__(adj)
        self._connection = connection
        self._limit = 0

    def parse_header(self, header_plus: bytes) -> None:
        """Read the head, and leave a body that is not taken where it is."""
        super().parse_header(header_plus)
        self._limit = self._connection.limit(self.path, self.headers, self._connection.addr[0])
        if self.content_length > self._limit or (self.chunked and not self._limit):
            self._leave_body(self.content_length)

    def received(self, data: bytes) -> int:
        """Take bytes of the request; return how many."""
        taken: int = super().received(data)
        if self.body_rcv is not None and self.body_bytes_received > self._limit:
            self._leave_body(self.body_bytes_received)
        return taken

    def _leave_body(self, length: int) -> None:
        self.headers |= {"CONTENT_LENGTH": str(length), "CONNECTION": "close"}
        self.body_rcv.getbuf().close()
        self.body_rcv, self.content_length = None, 0
        self.completed, self.expect_continue = True, False
        self._connection.leaves_body = True


class _Connection(HTTPChannel):  # type: ignore[misc]
    """A connection to a client."""

    will_close: bool

    def __init__(self, limit: BodyLimit, *given: Any, **named: Any) -> None:
        self.limit = limit
        self.parser_class = partial(_Request, connection=self)
        # Whether the client may still send a body that nobody takes. It is thrown away before the
        # connection ends: a client that is cut off while it sends reads no answer.
        self.leaves_body = self._is_ending = False
        super().__init__(*given, **named)

    def handle_close(self) -> None:
        if self.will_close and self.leaves_body and not self._is_ending:
            self._is_ending, self.will_close = True, False
            with suppress(OSError):  # the client is gone
                self.socket.shutdown(socket.SHUT_WR)
                return
        super().handle_close()

    def readable(self) -> bool:
        """Whether what the client sends is read."""
        return self._is_ending or bool(super().readable())

    def handle_read(self) -> None:
        """Read what there is; at the end, to throw it away."""
        if self._is_ending:
            self.recv(self.adj.recv_bytes)
        else:
            super().handle_read()


def run_server(settings: Settings, listening: Callable[[], None] = lambda: None) -> None:
    """Serve until a signal ends it; what has begun has 5 s to end.

    The process ends with status 1 where the application cannot be made; the log says why.

    Raises:
        ValueError: the address to listen on cannot be had.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gate, sockets = Gate(settings), dict[int, Any]()

    app = StartingApp(
        lambda: make_app(settings, gate),
        settings.model,
        lambda: os.kill(os.getpid(), signal.SIGTERM),
    )

    try:
        lanes = Lanes(RequestSlots(settings.threads).threads)
        server = create_server(app, sockets, _dispatcher=lanes, **_options(settings))
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        reason = error.strerror or error
        raise ValueError(f"HOST, PORT: cannot listen on {address}: {reason}.") from None

    for each in sockets.values():
        if isinstance(each, BaseWSGIServer):
            each.channel_class = partial(_Connection, body_limit(gate, settings))

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
    return {
        "host": settings.host,
        "port": settings.port,
        "ident": "",
        "connection_limit": _MAX_CONNECTIONS,
        "channel_timeout": _QUIET_S,
        "cleanup_interval": _QUIET_S // 2,
        "max_request_header_size": 1 << 16,
        "max_request_body_size": sys.maxsize,  # see `body_limit`
        "inbuf_overflow": _IN_MEMORY,
        "outbuf_overflow": _IN_MEMORY,
        "outbuf_high_watermark": _MAX_UNREAD,
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


def make_app(settings: Settings, gate: Gate) -> tuple[Flask, Callable[[], None]]:
    """Make the application, its engine and worker started, and a function that ends these.

    Raises:
        ValueError: the settings name a model that is not there.
    """
    from backend.inference.engine import Engine
    from backend.web.app import create_app

    engine = Engine.from_settings(settings, answers_clicks=True)
    app = create_app(settings, engine, gate)
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

    Until then ``/health`` says that the process is up, and all else is answered 503. `make`, which
    may take long, returns it and a function that ends it; `on_failure` is called where it cannot.
    """

    def __init__(
        self,
        make: Callable[[], tuple[WSGIApplication, Callable[[], None]]],
        model: str,
        on_failure: Callable[[], None],
    ) -> None:
        self._make = make
        self._model = model
        self._on_failure = on_failure
        self._app: WSGIApplication | None = None
        self._stop: Callable[[], None] = lambda: None
        self.failure = ""  # why the application could not be made, in a sentence

    def start(self) -> None:
        """Make the application in a thread."""
        threading.Thread(target=self._run, name="start", daemon=True).start()

    def stop(self) -> None:
        """End the application, if it was made."""
        self._stop()

    @property
    def is_starting(self) -> bool:
        """Whether the application is being made."""
        return self._app is None and not self.failure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._app is not None:
            return self._app(environ, start_response)
        if environ.get("PATH_INFO") == "/health":
            response = json_response(describe_health(self._model, "loading"))
        else:
            response = json_response({"error": self.failure or STARTING}, 503)
            response.status = f"503 {reason_phrase(self.failure or STARTING)}"
            response.headers["Retry-After"] = "5"
        response.headers.update(SECURITY_HEADERS)
        return response(environ, start_response)

    def _run(self) -> None:
        try:
            self._app, self._stop = self._make()
        except (BackendError, SQLAlchemyError, ValueError) as error:
            log.error("%s", error)
            self.failure = str(error)
        except Exception as error:
            log.exception("The backend cannot start")
            self.failure = f"Unexpected {type(error).__name__}: see the backend's log."
        if self.failure:
            self._on_failure()
