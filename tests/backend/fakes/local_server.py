"""A real HTTP server on 127.0.0.1, which remembers what it was asked."""

import contextlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from backend.cli import demo_servers


def free_port() -> int:
    """Return a port that stays free for the minute until its server is up.

    Nobody beside this test gets it meanwhile, neither a server on any port nor a client: systems
    give those from 32768 on.
    """
    return demo_servers.free_port(random.SystemRandom().randrange(10_000, 32_000))


@dataclass(frozen=True)
class Asked:
    method: str
    path: str  # with its query
    authorization: str | None
    body: bytes = b""
    cookie: str | None = None


@dataclass(frozen=True)
class Answer:
    """What to answer; its `length` may lie, and without one the body ends with the connection.

    Status 0: nothing, and the connection is closed.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    has_length: bool = True


Route = Callable[[Asked], Answer]


class _Server(ThreadingHTTPServer):
    request_queue_size = 100  # of more connections at once, some would wait for seconds


class LocalServer:
    """Answers by a function of the request; use it as a context manager.

    With a pause, the body is written byte by byte, until the client has gone.

    Args:
        keeps: whether it keeps connections.
    """

    def __init__(self, route: Route, pause_s: float = 0, keeps: bool = False) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1" if keeps else "HTTP/1.0"

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def _answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                asked = Asked(
                    self.command,
                    self.path,
                    self.headers.get("authorization"),
                    self.rfile.read(length),
                    self.headers.get("cookie"),
                )
                outer.asked.append(asked)
                answer = route(asked)
                if not answer.status:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                length = len(answer.body) if answer.length is None else answer.length
                if answer.has_length:
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                pieces = [bytes([byte]) for byte in answer.body] if pause_s else [answer.body]
                with contextlib.suppress(OSError):  # the client has read enough
                    for piece in pieces:
                        self.wfile.write(piece)
                        time.sleep(pause_s)

            do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "LocalServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
