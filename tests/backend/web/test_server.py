"""The served process as a user starts it."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from flask import Flask
from werkzeug.test import Client

from backend.cli.demo_servers import free_port
from backend.settings import Settings
from backend.web.middleware.guards import SECURITY_HEADERS
from backend.web.server import StartingApp, make_app
from tests.backend.fakes.colour_segmenter import brush_config, data_url, flag
from tests.backend.fakes.local_server import Answer, Asked, LocalServer

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
    port = free_port(0)
    command = [sys.executable, *program, "serve", "--port", str(port), *flags]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=variables or None
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
            with suppress(requests.RequestException):  # it does not listen yet
                if requests.get(f"{url}/", timeout=1).ok:
                    break
            time.sleep(0.1)
        yield url, process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served("--model", "demo", "--max-body-mb", "1", program=("-c", IMPATIENT)) as made:
        yield made


def sent(url: str, content: bytes) -> bytes:
    """The answer to bytes on a connection of their own, until that ends."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 60) as connection:
        connection.sendall(content)
        with suppress(ConnectionError), connection.makefile("rb") as answer:
            return answer.read()
    return b""


@pytest.mark.parametrize(
    "chunks", [b"zz\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n", b"2\r\n{}XX0\r\n\r\n"]
)
def test_a_body_in_broken_chunks_is_400(server: Served, chunks: bytes) -> None:
    url, _ = server
    head = b"POST /setup HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    answer = sent(url, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Traceback" not in answer


def test_a_body_that_is_too_large_is_413_and_shown_to_people(server: Served) -> None:
    """In chunks, too; and without reading it all where it is much too large."""
    url, _ = server
    body = b" " * (3 << 20)
    agent = {"User-Agent": "heartex/1.23.2"}
    for data in (body, iter([body])):
        answer = requests.post(f"{url}/predict", data=data, headers=agent, timeout=60)
        assert (answer.status_code, answer.json()) == (
            413,
            {"error": "The request is larger than MAX_BODY_MB (1)."},
        )
    shown = requests.get(f"{url}/status", timeout=60).json()
    assert "MAX_BODY_MB" in json.dumps(shown)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    assert sent(url, head + b"Content-Length: 99999999\r\n\r\n").startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "beginning",
    [b"", b"GET /hea", b"POST /setup HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"],
)
def test_who_never_finishes_a_request_is_let_go(server: Served, beginning: bytes) -> None:
    url, _ = server
    began = time.monotonic()
    assert sent(url, beginning) == b""
    assert time.monotonic() - began < 30
    assert requests.get(f"{url}/health", timeout=60).status_code == 200


def test_requests_that_come_at_once_are_answered_in_order(server: Served) -> None:
    url, _ = server
    first = b"GET /versions HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = sent(url, first * 200 + last)
    assert answers.count(b"HTTP/1.1 200 OK") == 201
    assert b'"UP"' in answers[-100:]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"model": "nothing"}, "arch/tag"),
        ({"model": "ViT-B-16/random"}, "never served"),
        ({"model": "demo", "method": "magic"}, "clip, maskclip, sclip, clearclip"),
        ({"model": "demo", "precision": "fp16", "device": "cpu"}, "fp16 needs a GPU"),
        ({"model": "demo", "device": "abacus"}, "auto, cpu, cuda or mps"),
        ({"model": "demo", "feature_cache_mb": 1 << 40}, "FEATURE_CACHE_MB"),
    ],
)
def test_what_can_never_work_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_app(Settings(**given))


def test_a_server_that_cannot_start_ends_with_a_sentence() -> None:
    port = free_port(0)
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "backend", "serve", "--port", str(port)),
            *("--model", "demo", "--device", "abacus"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode != 0
    assert "auto, cpu, cuda or mps, but got 'abacus'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_health_and_setup_answer_in_time_while_it_loads_and_predicts() -> None:
    """Label Studio gives up on /health after 1 s and on /setup after 3 s."""
    picture = data_url(np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), np.uint8))
    config = brush_config("sky", "grass", "house")
    seen: set[str] = set()
    running: set[int] = set()

    def predict(first: int) -> requests.Response:
        tasks = [{"id": first + i, "data": {"image": picture}} for i in range(4)]
        body = {"tasks": tasks, "label_config": config}
        return requests.post(f"{url}/predict", json=body, timeout=300)

    with served("--model", "demo") as (url, _), ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(predict, 10 * i) for i in range(1, 4)]
        while not all(answer.done() for answer in answers):
            assert requests.get(f"{url}/health", timeout=1).status_code == 200
            setup = requests.post(f"{url}/setup", json={"schema": config}, timeout=3)
            assert setup.status_code == 200
            status = requests.get(f"{url}/status", timeout=3).json()
            seen.add(status["model"]["state"])
            running |= {task["task"] for task in status["running"]}
            assert requests.get(url, headers={"Accept": "text/html"}, timeout=3).status_code == 200
            time.sleep(0.05)
    assert "ready" in seen
    assert running
    assert running <= {10 * i + j for i in range(1, 4) for j in range(4)}
    for answer in answers:
        results = answer.result().json()["results"]
        assert len(results) == 4
        assert {entry["model_version"] for entry in results} == {setup.json()["model_version"]}


def test_what_the_process_writes_is_json_where_that_is_asked_for() -> None:
    """Every line of it, the server's own included; the same id from request to task."""
    picture = data_url(np.zeros((60, 80, 3), np.uint8))
    with served("--model", "demo", "--log-format", "json") as (url, process):
        body = {"tasks": [{"id": 7, "data": {"image": picture}}], "project": "3.1"}
        config = {"label_config": brush_config("sky")}
        answer = requests.post(
            f"{url}/predict", json={**body, **config}, headers={"X-Request-ID": "r-1"}, timeout=300
        )
        assert answer.status_code == 200
        process.terminate()
        _, written = process.communicate(timeout=30)
    lines = [json.loads(line) for line in written.decode().splitlines()]
    loggers = {line["logger"] for line in lines}
    assert {
        "backend.web.server",
        "backend.inference.model_loader",
        "backend.telemetry.task_tracker",
        "backend.web.app",
    } <= loggers
    assert "waitress" not in loggers, "a request is one line"
    (task,) = (line for line in lines if line["logger"] == "backend.telemetry.task_tracker")
    assert {"request": "r-1", "project": 3, "task": 7, "urgency": "opened"}.items() <= task.items()
    stages = {name for name in task if name.endswith("_ms")}
    assert {f"{name}_ms" for name in ("fetch", "prepare", "wait", "model", "draw")} <= stages
    assert sum(task[stage] for stage in stages) <= task["ms"] + len(stages)
    (request,) = (line for line in lines if line["logger"] == "backend.web.app")
    assert (request["message"], request["request"]) == ("POST /predict: 200", "r-1")


def test_weights_that_cannot_be_had_are_said_over_http(tmp_path: Path) -> None:
    with served("--wait", "--model", f"ViT-B-16-quickgelu@{tmp_path}/none.safetensors") as (url, _):
        assert requests.get(f"{url}/health", timeout=60).status_code == 200
        body = {"tasks": [], "label_config": brush_config("red"), "schema": brush_config("red")}
        for path in ("predict", "setup"):
            response = requests.post(f"{url}/{path}", json=body, timeout=60)
            assert response.status_code == 503
            assert response.reason == f"There are no weights at {tmp_path}/none.safetensors."


@pytest.mark.parametrize("ends", [True, False])
def test_a_request_in_progress_is_answered_before_the_end(ends: bool) -> None:
    """The server stops while the picture of a task is fetched; it waits 5 s at most."""
    asked, go_on = threading.Event(), threading.Event()
    picture = base64.b64decode(data_url(flag("red")).partition(",")[2])

    def fetch(_: Asked) -> Answer:
        asked.set()
        assert go_on.wait(60)
        return Answer(body=picture)

    answers: list[requests.Response] = []
    variables = os.environ | {"ALLOWED_HOSTS": "127.0.0.1"}
    with LocalServer(fetch) as files, served("--model", "demo", **variables) as (url, process):
        task = {"id": 1, "data": {"image": f"http://127.0.0.1:{files.port}/a.png"}}
        body = {"tasks": [task], "label_config": brush_config("sky")}

        def send() -> None:
            with suppress(requests.ConnectionError):
                answers.append(requests.post(f"{url}/predict", json=body, timeout=60))

        thread = threading.Thread(target=send)
        thread.start()
        assert asked.wait(60)
        began = time.monotonic()
        process.terminate()
        if ends:
            time.sleep(0.2)
            go_on.set()
        assert process.wait(timeout=30) == 0
        assert time.monotonic() - began < 15, "it is 5 s on a quiet machine"
        go_on.set()
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * ends
    assert all(answer.json()["results"][0]["result"] for answer in answers)


# ---- while it starts ----------------------------------------------------------------------------


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
