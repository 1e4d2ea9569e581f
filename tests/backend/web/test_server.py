"""The served process as a user starts it."""

import base64
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask
from werkzeug.test import Client

from backend import create_app
from backend.inference.engine import Engine
from backend.jobs.worker import Worker
from backend.settings import Settings
from backend.web.middleware.guards import SECURITY_HEADERS
from backend.web.server import StartingApp
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, data_url, flag
from tests.backend.fakes.local_server import Answer, Asked, LocalServer, free_port

Served = tuple[str, "subprocess.Popen[bytes]"]

#: The backend, which here closes connections after a second in which they send nothing.
IMPATIENT = (
    "from backend.web import server; server._QUIET_S = 1; from backend.__main__ import main; main()"
)


@contextmanager
def served(
    *flags: str, program: Sequence[str] = ("-m", "backend"), **variables: str
) -> Iterator[Served]:
    """``clearclip-backend serve`` as a process; the value is its address, and the process."""
    port = free_port()
    command = [sys.executable, *program, "serve", "--port", str(port), *flags]
    pipes: Any = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=variables or None, **pipes)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
            with suppress(requests.RequestException):  # it does not listen yet
                if requests.get(f"{url}/", timeout=1).status_code in (200, 401):
                    break
            time.sleep(0.1)
        yield url, process
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with served("--model", "demo", "--max-body-mb", "1", program=("-c", IMPATIENT)) as (url, _):
        yield url


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a backend with a password, and the folder of its temporary files."""
    folder = tmp_path_factory.mktemp("bodies")
    own = {"BASIC_AUTH_USER": "ann", "BASIC_AUTH_PASS": "secret", "TMPDIR": str(folder)}
    with served("--model", "demo", **os.environ | own) as (url, _):
        yield url, folder


def sent(url: str, content: bytes) -> bytes:
    """The answer to bytes on a connection of their own, until that ends."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 60) as connection:
        connection.sendall(content)
        with suppress(ConnectionError), connection.makefile("rb") as answer:
            return answer.read()
    return b""


def test_a_body_that_is_too_large_is_413(server: str) -> None:
    """In chunks, too; and no more of it is taken than fits. Who still sends is not cut off."""
    body = b" " * (30 << 20)
    for data in (body, iter([body])):
        answer = requests.post(f"{server}/predict", data=data, timeout=60)
        assert answer.status_code == 413
        assert answer.json() == {"error": "The request is larger than MAX_BODY_MB (1)."}
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    assert sent(server, head + b"Content-Length: 1048577\r\n\r\n").startswith(b"HTTP/1.1 413 ")


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_a_server_that_is_hardly_asked_has_few_threads() -> None:
    with served("--model", "demo") as (_, process):
        assert len([*Path(f"/proc/{process.pid}/task").iterdir()]) < 60


CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize("length", [b"Content-Length: 200000000", CHUNKED])
@pytest.mark.parametrize(
    "more", [b"", b"Authorization: Basic d3Jvbmc=\r\n", b"Expect: 100-continue\r\n"]
)
def test_who_has_no_password_is_refused_before_a_byte_of_the_body(
    closed: tuple[str, Path], length: bytes, more: bytes
) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n" + more + length + b"\r\n\r\n"
    assert sent(closed[0], head).startswith(b"HTTP/1.1 401 ")


def test_bodies_of_who_has_no_password_take_no_place(closed: tuple[str, Path]) -> None:
    """All of it is sent nevertheless, as by `requests`; a webhook has none, and is small."""
    url, folder = closed
    body = b" " * (30 << 20)
    for data in (body, iter([body[: 1 << 20]] * 30)):
        assert requests.post(f"{url}/predict", data=data, timeout=60).status_code == 401
    assert requests.post(f"{url}/webhook", data=body, timeout=60).status_code == 200
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 60) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n" + CHUNKED + b"\r\n\r\n")
        with suppress(ConnectionError):
            connection.sendall(b"1e00000\r\n" + body)
        kept = sum(file.stat().st_size for file in folder.rglob("*"))
        assert kept < 1 << 20, "torch 2.6 writes a module there, of 6 kB"
    answer = requests.post(f"{url}/predict", data=body, auth=("ann", "secret"), timeout=60)
    assert answer.status_code == 400, "the right one is read, and is no JSON"


@pytest.mark.parametrize(
    "beginning",
    [b"", b"GET /hea", b"POST /setup HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"],
)
def test_who_never_finishes_a_request_is_let_go(server: str, beginning: bytes) -> None:
    assert sent(server, beginning) == b"", "a minute is too long"
    assert requests.get(f"{server}/health", timeout=60).status_code == 200


def test_only_an_engine_of_its_own_is_started_and_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    given, started = colour_engine(), []
    monkeypatch.setattr(Engine, "start", lambda _: started.append("engine"))
    monkeypatch.setattr(Worker, "start", lambda _: started.append("worker"))
    create_app(Settings(), given)
    assert started == []
    create_app(Settings(model="demo"))
    assert started == ["engine", "worker"]


@pytest.mark.parametrize("ends", [True, False])
def test_a_request_in_progress_is_answered_before_the_end(ends: bool) -> None:
    """The server stops while the picture of a task is fetched; it waits 5 s at most."""
    asked, go_on = threading.Event(), threading.Event()
    picture = base64.b64decode(data_url(flag("red")).partition(",")[2])

    def fetch(_: Asked) -> Answer:
        asked.set()
        assert go_on.wait(300)
        return Answer(body=picture)

    answers: list[requests.Response] = []
    variables = os.environ | {"ALLOWED_HOSTS": "127.0.0.1"}
    with LocalServer(fetch) as files, served("--model", "demo", **variables) as (url, process):
        task = {"id": 1, "data": {"image": f"http://127.0.0.1:{files.port}/a.png"}}
        body = {"tasks": [task], "label_config": brush_config("sky")}

        def send() -> None:
            with suppress(requests.ConnectionError):
                answers.append(requests.post(f"{url}/predict", json=body, timeout=300))

        thread = threading.Thread(target=send)
        thread.start()
        assert asked.wait(60)
        process.terminate()
        if ends:
            time.sleep(0.2)
            go_on.set()
        assert process.wait(timeout=120) == 0
        go_on.set()
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * ends
    assert all(answer.json()["results"][0]["result"] for answer in answers)


def starting(may_end: threading.Event, made: Flask | Exception) -> tuple[StartingApp, Client]:
    """An application that is made, or fails to be, once it may; and who asks it."""

    def make() -> Any:
        assert may_end.wait(60)
        if isinstance(made, Exception):
            raise made
        return made, lambda: None

    app = StartingApp(make, "demo", may_end.clear)
    app.start()
    return app, Client(app)


def test_health_is_up_at_once_and_the_rest_when_the_application_is_made() -> None:
    true_app, may_end = Flask("true"), threading.Event()
    true_app.add_url_rule("/health", "health", lambda: "true health")
    app, client = starting(may_end, true_app)
    health = client.get("/health")
    assert health.get_json() == {"status": "UP", "model": "demo", "state": "loading"}
    assert SECURITY_HEADERS.items() <= dict(health.headers).items()
    answer = client.post("/setup")
    sentence = "The backend is starting: try again in a moment."
    assert (answer.status, answer.headers["Retry-After"]) == (f"503 {sentence}", "5")
    assert answer.get_json() == {"error": sentence}
    may_end.set()
    while app.is_starting:
        time.sleep(0.01)
    assert client.get("/health").text == "true health"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("MODEL: there is none."), "MODEL: there is none."),
        (ImportError("secret path"), "Unexpected ImportError: see the backend's log."),
    ],
)
def test_a_failure_is_said_in_a_sentence(error: Exception, sentence: str) -> None:
    may_end = threading.Event()
    app, client = starting(may_end, error)
    may_end.set()
    while may_end.is_set():  # until it is told
        time.sleep(0.01)
    assert app.failure == sentence
    answer = client.post("/setup")
    assert (answer.status, answer.get_json()) == (f"503 {sentence}", {"error": sentence})
