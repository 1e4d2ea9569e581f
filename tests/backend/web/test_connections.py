"""Clients that send or read slowly take no thread from others, and are let go in time."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from waitress import wasyncore

from backend.settings import Settings
from backend.web import connections, dispatcher
from backend.web.connections import Server
from backend.web.dispatcher import Dispatcher

LARGE = 32 << 20  # bytes: more than the system takes for a client that does not read
HALF_HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Half"
LONG = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n"
HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
IN_CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKED = HEAD + IN_CHUNKS
HALF_BODY = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"


class App:
    """A WSGI application: ``/large``, ``/echo``, ``/wait``, and an answer to every other path.

    Attributes:
        is_gone: tells whether the client that waits has gone.
    """

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.waiting = threading.Semaphore(0)
        self.is_gone: Callable[[], bool] = lambda: False

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        refused = environ.get("clearclip.refused")
        if path == "/wait":
            self.is_gone = environ["waitress.client_disconnected"]
            self.waiting.release()
            assert self.go_on.wait(60)
        body = environ["wsgi.input"].read() if path == "/echo" else b"ok"
        body = b"x" * LARGE if path == "/large" else body
        status = "200 OK" if refused is None else f"400 {refused.name}"
        start_response(status, [("Content-Length", str(len(body)))])
        return [body]


@contextmanager
def turned_by_hand(**settings: Any) -> Iterator[tuple[int, App, Server, Callable[[], None]]]:
    """The value is the port, the application, the server, and a turn of the loop."""
    app, watched = App(), {}  # type: ignore[var-annotated]
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    given = Settings(**({"threads": 4} | settings))
    threads = Dispatcher(given.threads)
    server = Server(app, given, listening, watched, threads)

    def turn() -> None:
        server.keep_limits()
        wasyncore.loop(0.05, use_poll=True, map=watched, count=1)

    try:
        yield port, app, server, turn
    finally:
        app.go_on.set()
        threads.shutdown()
        wasyncore.close_all(watched)


@contextmanager
def served(**settings: Any) -> Iterator[tuple[int, App, Server]]:
    """The value is the port, the application, and the server."""
    with turned_by_hand(**settings) as (port, app, server, turn):
        ended = threading.Event()

        def loop() -> None:
            while not ended.is_set():
                turn()

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield port, app, server
        finally:
            app.go_on.set()
            ended.set()
            thread.join()


def connect(port: int, sent: bytes, receive_bytes: int | None = None) -> socket.socket:
    client = socket.socket()
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(60)
    client.connect(("127.0.0.1", port))
    client.sendall(sent)
    return client


def rest_of(client: socket.socket) -> bytes:
    """What is received until the connection ends."""
    with client, client.makefile("rb") as stream:
        try:
            return stream.read()
        except ConnectionResetError:
            return b""


def wait_until_closed(server: Server) -> None:
    while server.active_channels:
        threading.Event().wait(0.05)


def health(port: int) -> int:
    return requests.get(f"http://127.0.0.1:{port}/health", timeout=30).status_code


def test_clients_that_send_or_read_nothing_take_no_thread() -> None:
    """Far more of them than there are threads, and none of their times is over meanwhile."""
    with served() as (port, _, _):
        clients = [connect(port, HALF_HEAD) for _ in range(60)]
        clients += [connect(port, HALF_BODY) for _ in range(60)]
        clients += [
            connect(port, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", 4096) for _ in range(20)
        ]
        assert health(port) == 200
        for _ in range(3):
            answer = requests.post(f"http://127.0.0.1:{port}/echo", data=b"hello", timeout=30)
            assert answer.content == b"hello"
        for client in clients:
            client.close()


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_thread_that_answers_can_tell_that_the_client_has_gone(is_reset: bool) -> None:
    with served() as (port, app, _):
        client = connect(port, b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert app.waiting.acquire(timeout=20)
        assert not app.is_gone()
        if is_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        while not app.is_gone():
            threading.Event().wait(0.01)
        assert health(port) == 200


def test_who_sends_a_second_request_before_the_first_is_answered_is_there() -> None:
    request = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
    with served() as (port, app, _), connect(port, request) as client:
        assert app.waiting.acquire(timeout=20)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert not app.is_gone()
        app.go_on.set()
        assert rest_of(client).count(b"200 OK") == 2


def test_an_answer_may_be_larger_than_the_system_takes() -> None:
    with served() as (port, _, _):
        body = requests.get(f"http://127.0.0.1:{port}/large", timeout=60).content
    assert body == b"x" * LARGE


@pytest.mark.parametrize(
    ("sent", "first"),
    [
        (b"", b""),
        (HALF_HEAD, b""),
        (HALF_BODY, b"HTTP/1.1 400 TOO_SLOW"),
        (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            b"HTTP/1.1 400 T",
        ),
    ],
    ids=["nothing", "head", "body", "chunk"],
)
def test_a_request_that_does_not_arrive_ends(sent: bytes, first: bytes) -> None:
    with served(request_timeout_s=0.2) as (port, _, server):
        answer = rest_of(connect(port, sent))
        assert answer.startswith(first)
        assert bool(answer) == bool(first)
        wait_until_closed(server)


def test_an_answer_that_is_read_slowly_may_take_longer_than_the_limit() -> None:
    """Six seconds at least, by the pauses."""
    with served(request_timeout_s=4) as (port, _, _):
        client = connect(port, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        left = LARGE
        while left > 0:
            part = client.recv(1 << 18)
            assert part, "closed while it was read"
            left -= len(part)
            time.sleep(0.05)
        client.close()


def test_an_answer_that_is_not_read_ends() -> None:
    with served(request_timeout_s=0.5) as (port, _, server):
        client = connect(port, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", 4096)
        client.recv(1)
        wait_until_closed(server)
        assert len(rest_of(client)) < LARGE


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HALF_BODY, b"400 BROKEN"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n{", b"400 TOO_LARGE"),
        (CHUNKED + b"zz\r\n", b"400 BROKEN"),
        (CHUNKED + b"1;" + b"x" * 100_000, b"400 BROKEN"),
        (CHUNKED + b"0\r\nx: " + b"x" * 100_000, b"400 BROKEN"),
        (CHUNKED + b"0\r\nno trailer\r\n\r\n", b"400 BROKEN"),
        (CHUNKED + b"1\r\nx\r\n" * 300_000, b"400 BROKEN"),
        (CHUNKED + b"f" * 16 + b"\r\nx", b"400 TOO_LARGE"),
        (HEAD + b"Content-Length: 5\r\n" + IN_CHUNKS, b"400 BROKEN"),
        (HEAD.replace(b"1.1", b"1.0") + IN_CHUNKS, b"400 Bad Request"),
        (HEAD + b"Host: elsewhere.example\r\n\r\n", b"400 Bad Request"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400 Bad Request"),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431 "),
        (LONG + b"x" * 3_000_000, b"400 TOO_LARGE"),
        (b"nonsense\r\n\r\n", b"400 Bad Request"),
    ],
    ids=[
        "early",
        "large",
        "chunk",
        "line",
        "trailer",
        "field",
        "tiny",
        "endless chunk",
        "two lengths",
        "chunks of HTTP/1.0",
        "two hosts",
        "length",
        "head",
        "rest",
        "nonsense",
    ],
)
def test_what_cannot_be_read_is_answered(sent: bytes, status: bytes) -> None:
    with served(max_body_mb=2) as (port, _, _):
        client = connect(port, sent)
        client.shutdown(socket.SHUT_WR)
        assert rest_of(client)[9:].startswith(status)
        assert health(port) == 200


@pytest.mark.parametrize("head", [b"nonsense", b"GET /" + b"x" * 70_000])
def test_a_head_that_cannot_be_read_is_answered_with_the_headers_of_security(head: bytes) -> None:
    """The application, which adds them elsewhere, never sees such a request."""
    with served() as (port, _, _):
        answer = rest_of(connect(port, head + b"\r\n\r\n")).partition(b"\r\n\r\n")[0]
    lines = answer.decode().splitlines()
    assert {"X-Content-Type-Options: nosniff", "X-Frame-Options: DENY"} <= set(lines)
    assert lines.count("Cache-Control: no-store") == 1


@pytest.mark.parametrize("path", sorted(dispatcher.RESERVED))
def test_nobody_takes_the_threads_of_who_watches(path: str) -> None:
    with served() as (port, app, _):
        waiting = [connect(port, b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(100)]
        # All threads: to answer, to wait in line, both for batches, and to refuse.
        for _ in range(4 + 64 + 2 + 16 + 8):
            assert app.waiting.acquire(timeout=60)
        assert not app.waiting.acquire(blocking=False)
        for _ in range(3):
            assert requests.get(f"http://127.0.0.1:{port}{path}", timeout=30).status_code == 200
        app.go_on.set()
        for client in waiting:
            assert client.recv(12) == b"HTTP/1.1 200"
            client.close()


def test_a_client_with_too_many_connections_loses_its_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS_OF_CLIENT", 10)
    with served() as (port, _, server):
        clients = [connect(port, HALF_HEAD) for _ in range(30)]
        assert rest_of(clients[0]) == b""
        assert health(port) == 200
        assert len(server.active_channels) <= 10
        for client in clients[:20]:
            assert client.fileno() == -1 or rest_of(client) == b""
        for client in clients[21:]:  # one more has gone for /health
            client.sendall(b": 1\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
            client.close()


def test_connections_that_are_answered_are_not_closed_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 8)
    with served() as (port, app, _):
        clients = [connect(port, b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(8)]
        for _ in range(8):
            assert app.waiting.acquire(timeout=60)
        for _ in range(20):
            connect(port, HALF_HEAD).close()
        app.go_on.set()
        for client in clients:
            assert client.recv(12) == b"HTTP/1.1 200"
            client.close()


def test_a_new_connection_outlives_old_ones_that_end() -> None:
    """It may get the number of a file that was closed just before."""
    with served(request_timeout_s=0.3) as (port, _, _):
        for _ in range(10):
            old = [connect(port, HALF_HEAD) for _ in range(40)]
            while len(select.select(old, [], [], 0)[0]) < len(old):
                assert health(port) == 200
            for client in old:
                client.close()


def test_a_refused_client_that_resets_its_connection_ends_nothing_else() -> None:
    """One turn of the loop may find that a connection can be read and written, and read its end."""
    with turned_by_hand() as (port, _, server, turn):
        client = connect(port, CHUNKED + b"zz\r\n")
        while not any(one.close_when_flushed for one in server.active_channels.values()):
            if not any(one.is_refused for one in server.active_channels.values()):
                turn()
        (connection,) = server.active_channels.values()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        wasyncore.readwrite(connection, select.POLLIN | select.POLLOUT | select.POLLHUP)
        assert not server.active_channels
        with connect(port, HALF_HEAD):
            turn()
            assert len(server.active_channels) == 1


def test_connections_of_another_process_are_served_and_those_that_have_ended_are_not() -> None:
    with turned_by_hand() as (port, _, server, turn):
        server.has_acceptor = True
        with connect(port, HALF_HEAD) as client:
            turn()
            assert not server.active_channels
            ours, its = socket.socketpair()  # it has no address, as one that was reset
            server.adopt(ours)
            assert ours.fileno() == -1
            its.close()
            server.has_acceptor = False
            turn()
            assert len(server.active_channels) == 1
        with socket.create_server(("127.0.0.1", 0)) as other:
            client = connect(other.getsockname()[1], HALF_HEAD + b": 1\r\n\r\n")
            server.adopt(other.accept()[0])
            while not server.is_busy:
                turn()
            while server.is_busy:
                turn()
            assert client.recv(12) == b"HTTP/1.1 200"
            client.close()


def test_an_error_of_one_connection_ends_only_that(monkeypatch: pytest.MonkeyPatch) -> None:
    with turned_by_hand() as (port, _, server, turn), connect(port, HALF_HEAD):
        turn()
        (connection,) = server.active_channels.values()
        monkeypatch.setattr(connection, "_is_draining", True)
        monkeypatch.setattr(connection, "socket", None)
        wasyncore.readwrite(connection, select.POLLIN)
        assert not server.active_channels


def test_bodies_on_disk_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_MAX_BODIES", 3)
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    with served(max_body_mb=1) as (port, _, server):
        clients = [connect(port, head + b"x" * 900_000) for _ in range(6)]
        assert rest_of(clients[0]) == b""
        assert sum(one.body_bytes for one in list(server.active_channels.values())) < 6 * 900_000
        clients[-1].sendall(b"x" * 100_000)
        assert clients[-1].recv(12) == b"HTTP/1.1 200"
        for client in clients[1:]:
            client.close()


def test_requests_may_follow_each_other_on_a_connection() -> None:
    one = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
    with served() as (port, _, _):
        client = connect(port, one + b"ab" + one + b"cd" + one)
        client.sendall(b"ef")
        client.shutdown(socket.SHUT_WR)
        bodies = [part[:2] for part in rest_of(client).split(b"\r\n\r\n")[1:]]
    assert bodies == [b"ab", b"cd", b"ef"]
