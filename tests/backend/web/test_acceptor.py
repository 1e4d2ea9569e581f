"""``/health`` is answered by a process that nothing else takes time from."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from backend.settings import Settings
from backend.web import acceptor
from backend.web.acceptor import ANSWERED, CONNECTION, Acceptor, plain_host
from backend.web.middleware.host_names import HostNames

HEALTH = b"GET /health HTTP/1.1\r\nHost: backend:9090\r\nAccept: */*\r\n\r\n"


@contextmanager
def accepting(**settings: str) -> Iterator[tuple[int, socket.socket]]:
    """The value is the port, and the backend's end of the link."""
    names = HostNames(Settings(**settings))
    ours, its = socket.socketpair()
    ours.settimeout(30)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=Acceptor([listening], its, "demo", names).run)
        thread.start()
        try:
            yield listening.getsockname()[1], ours
        finally:
            ours.close()
            thread.join()
            its.close()


def report(link: socket.socket, state: str = "ready") -> None:
    link.send(bytes([("loading", "ready", "failed").index(state)]))


def connect(port: int, sent: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(sent)
    return client


def handed_over(link: socket.socket) -> socket.socket:
    """The next connection that the acceptor hands over."""
    told, files, _, _ = socket.recv_fds(link, 1, 1)
    assert told == CONNECTION
    connection = socket.socket(fileno=files[0])
    connection.settimeout(30)
    return connection


@pytest.mark.parametrize("state", ["loading", "ready", "failed"])
def test_the_answer_is_that_of_the_application(state: str) -> None:
    with accepting() as (port, link):
        report(link, state)
        response = requests.get(f"http://127.0.0.1:{port}/health", timeout=30)
        assert link.recv(1) == ANSWERED
    assert response.status_code == 200
    assert response.json() == {"status": "UP", "model": "demo", "state": state}
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Connection"] == "close"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /ready HTTP/1.1\r\nHost: backend\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: backend\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /health?x=1 HTTP/1.1\r\nHost: backend\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: backend\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: evil.example\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHalf: ",
        b"G",
        b"\x00\xff",
        2 * HEALTH,
    ],
)
def test_all_else_goes_to_the_backend_untouched(sent: bytes) -> None:
    with accepting() as (port, link):
        report(link)
        with connect(port, sent) as client, handed_over(link) as connection:
            assert connection.recv(len(sent) + 1) == sent
            connection.sendall(b"answer")
            assert client.recv(6) == b"answer"


def test_under_an_unknown_name_the_acceptor_never_answers() -> None:
    """Neither before the backend has reported itself nor in any of its states."""
    asked = HEALTH.replace(b"backend:9090", b"clearclip.lab.example")
    with accepting(server_names="clearclip.lab.example") as (port, link):
        for state in ("", "loading", "ready", "failed"):
            if state:
                report(link, state)
            with connect(port, asked), handed_over(link) as connection:
                assert connection.recv(9999) == asked


def test_with_a_password_and_no_names_the_acceptor_answers_under_any() -> None:
    with accepting(basic_auth_user="ann", basic_auth_pass="secret") as (port, link):
        report(link)
        with connect(port, HEALTH.replace(b"backend:9090", b"evil.example")) as client:
            assert client.recv(15) == b"HTTP/1.1 200 OK"


def test_a_silent_connection_goes_to_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "_SILENT_FOR_S", 0.01)
    monkeypatch.setattr(acceptor, "_LOOP_S", 0.01)
    with accepting() as (port, link):
        report(link)
        with connect(port, b"") as client, handed_over(link) as connection:
            client.sendall(b"late")
            assert connection.recv(9) == b"late"


def test_a_backend_that_does_not_report_itself_is_not_spoken_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with accepting() as (port, link):
        with connect(port, HEALTH), handed_over(link) as connection:
            assert connection.recv(9999) == HEALTH
        report(link)
        monkeypatch.setattr(acceptor, "TRUSTED_FOR_S", 0.0)
        with connect(port, HEALTH), handed_over(link) as connection:
            assert connection.recv(9999) == HEALTH


def test_health_is_answered_while_the_backend_takes_no_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There are more of them than the link and the queue take: the newest are closed."""
    monkeypatch.setattr(acceptor, "_MAX_WAITING", 20)
    with accepting() as (port, link):
        report(link)
        link.setblocking(False)
        clients = [connect(port, b"GET / HTTP/1.1\r\n\r\n") for _ in range(600)]
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=30).status_code == 200
        link.settimeout(30)
        taken = []
        while (told := socket.recv_fds(link, 1, 1))[0] == CONNECTION:
            taken += told[1]
        assert told[0] == ANSWERED
        assert 20 < len(taken) < 600
        for file in taken:
            os.close(file)
        for client in clients:
            client.close()


def test_connections_that_send_nothing_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acceptor, "_MAX_WAITING", 4)
    with accepting() as (port, link):
        report(link)
        for _ in range(40):
            connect(port, b"").close()  # those that have gone do not count
        clients = [connect(port, b"") for _ in range(9)]
        for _ in range(5):  # the oldest of them
            handed_over(link).close()
        for client in clients:
            client.close()


def test_the_name_of_the_host_is_read_without_spaces() -> None:
    assert plain_host(b"GET /health HTTP/1.0\r\nUser-Agent: x\r\nhOST:  a:1 \r\n\r\n") == "a:1"
