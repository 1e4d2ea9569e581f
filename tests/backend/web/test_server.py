"""The served process as a user starts it."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from backend.cli.server_process import free_port
from backend.settings import Settings
from backend.web.server import make_app
from tests.backend.fakes.colour_segmenter import brush_config, data_url
from tests.backend.fakes.local_server import Answer, Asked, LocalServer

Served = tuple[str, "subprocess.Popen[bytes]"]


@contextmanager
def served(*flags: str, **variables: str) -> Iterator[Served]:
    """``clearclip-backend serve`` as a process; the value is its address, and the process."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "backend", "serve", "--port", str(port), *flags]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=variables or None
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
            try:
                requests.get(f"{url}/health", timeout=1)
                break
            except requests.RequestException:  # it does not listen, or loads the application
                time.sleep(0.1)
        requests.get(f"{url}/", timeout=120)  # waits until the rest answers too
        yield url, process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}XX0\r\n\r\n",
        b"2;=\r\n{}\r\n0\r\n\r\n",
        b"0\r\nbad trailer\r\n\r\n",
        b"5" * 10_000,
    ],
    ids=["size", "negative", "terminator", "extension", "trailer", "long-size"],
)
def test_a_body_in_broken_chunks_is_400(plain_server: Served, chunks: bytes) -> None:
    """As is one that ends too early."""
    url, _ = plain_server
    host, port = url.removeprefix("http://").split(":")
    for route in (b"/setup", b"/predict", b"/webhook", b"/jobs"):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(
                b"POST " + route + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                b"Content-Type: application/json\r\nConnection: close\r\n\r\n" + chunks
            )
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError), connection.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.1 400 ")
                assert b"Traceback" not in answer.read()
    assert requests.get(f"{url}/health", timeout=5).status_code == 200


@pytest.fixture(scope="module")
def plain_server() -> Iterator[Served]:
    with served("--model", "demo") as server:
        yield server


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_health_does_not_depend_on_the_process_that_serves(plain_server: Served) -> None:
    """It is answered while that gets no time, counted later, and answered by it in the end."""
    url, process = plain_server
    (serving,) = children(process.pid)
    (accepting,) = children(serving)
    assert requests.get(f"{url}/ready", timeout=60).status_code in (200, 503)
    os.kill(serving, signal.SIGSTOP)
    try:
        for _ in range(3):
            assert requests.get(f"{url}/health", timeout=5).json()["status"] == "UP"
        with pytest.raises(requests.Timeout):
            requests.get(f"{url}/ready", timeout=0.2)
    finally:
        os.kill(serving, signal.SIGCONT)
    counted = 'clearclip_requests_total{method="GET",route="/health",status="200"} '
    (line,) = (
        line
        for line in requests.get(f"{url}/metrics", timeout=60).text.splitlines()
        if line.startswith(counted)
    )
    assert float(line.removeprefix(counted)) >= 3
    os.kill(accepting, signal.SIGKILL)
    while Path(f"/proc/{accepting}").exists():
        time.sleep(0.01)
    for _ in range(3):
        assert requests.get(f"{url}/health", timeout=60).json()["status"] == "UP"


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
        [sys.executable, "-m", "backend", "serve", "--port", str(port), "--device", "abacus"],
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
    with served("--model", "demo") as (url, _):
        answers: list[requests.Response] = []

        def predict(first: int) -> None:
            tasks = [{"id": first + i, "data": {"image": picture}} for i in range(4)]
            body = {"tasks": tasks, "label_config": config}
            answers.append(requests.post(f"{url}/predict", json=body, timeout=300))

        threads = [threading.Thread(target=predict, args=(10 * i,)) for i in range(1, 4)]
        for thread in threads:
            thread.start()
        asked = 0
        seen: set[str] = set()
        running: set[int] = set()
        while any(thread.is_alive() for thread in threads):
            assert requests.get(f"{url}/health", timeout=1).status_code == 200
            setup = requests.post(f"{url}/setup", json={"schema": config}, timeout=3)
            assert setup.status_code == 200
            status = requests.get(f"{url}/status", timeout=3).json()
            seen.add(status["model"]["state"])
            running |= {task["task"] for task in status["running"]}
            assert requests.get(url, headers={"Accept": "text/html"}, timeout=3).status_code == 200
            asked += 1
            time.sleep(0.05)
        for thread in threads:
            thread.join()
    assert asked > 3
    assert "ready" in seen
    assert running
    assert running <= {10 * i + j for i in range(1, 4) for j in range(4)}
    assert [answer.status_code for answer in answers] == [200] * 3
    for answer in answers:
        results = answer.json()["results"]
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
        "gunicorn.error",
        "backend.inference.model_loader",
        "backend.telemetry.task_tracker",
        "backend.web.middleware.request_log",
    } <= loggers
    assert "gunicorn.access" not in loggers, "a request is one line"
    (task,) = (line for line in lines if line["logger"] == "backend.telemetry.task_tracker")
    assert {"request": "r-1", "project": 3, "task": 7, "urgency": "opened"}.items() <= task.items()
    stages = {name for name in task if name.endswith("_ms")}
    assert {f"{name}_ms" for name in ("fetch", "prepare", "wait", "model", "draw")} <= stages
    assert sum(task[stage] for stage in stages) <= task["ms"] + len(stages)
    (request,) = (line for line in lines if line["logger"] == "backend.web.middleware.request_log")
    assert (request["message"], request["request"]) == ("POST /predict: 200", "r-1")


def test_weights_that_cannot_be_had_are_said_over_http(tmp_path: Path) -> None:
    with served("--model", f"ViT-B-16-quickgelu@{tmp_path}/none.safetensors") as (url, _):
        assert requests.get(f"{url}/health", timeout=60).status_code == 200
        body = {"tasks": [], "label_config": brush_config("red"), "schema": brush_config("red")}
        for path in ("predict", "setup"):
            response = requests.post(f"{url}/{path}", json=body, timeout=60)
            assert response.status_code == 503
            assert response.reason == f"There are no weights at {tmp_path}/none.safetensors."


def test_a_request_in_progress_is_answered_before_the_end() -> None:
    """The server stops while the picture of a task is fetched."""
    asked, go_on = threading.Event(), threading.Event()
    picture = io.BytesIO()
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(picture, "PNG")

    def fetch(_: Asked) -> Answer:
        asked.set()
        assert go_on.wait(60)
        return Answer(body=picture.getvalue())

    answers: list[requests.Response] = []
    variables = os.environ | {"ALLOWED_HOSTS": "127.0.0.1"}
    with LocalServer(fetch) as files, served("--model", "demo", **variables) as (url, process):
        task = {"id": 1, "data": {"image": f"http://127.0.0.1:{files.port}/a.png"}}
        body = {"tasks": [task], "label_config": brush_config("sky")}
        send = partial(requests.post, f"{url}/predict", json=body, timeout=60)
        thread = threading.Thread(target=lambda: answers.append(send()))
        thread.start()
        assert asked.wait(60)
        process.terminate()
        for _ in range(600):
            try:
                requests.get(f"{url}/health", timeout=5)
            except requests.ConnectionError:
                break
            time.sleep(0.02)
        go_on.set()
        thread.join()
        process.wait(timeout=30)
    assert [answer.status_code for answer in answers] == [200]
    assert answers[0].json()["results"][0]["result"]


def test_clients_that_never_finish_a_request_are_let_go_and_stop_nobody() -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
    beginnings = [b"GET /hea", head, head + b"\r\n{", head + b"\r\n"]
    with served("--model", "demo", "--request-timeout-s", "1", "--threads", "4") as (url, _):
        port = int(url.rpartition(":")[2])
        stalled = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        for index, connection in enumerate(stalled):
            connection.sendall(beginnings[index % 4])
        assert requests.get(f"{url}/health", timeout=60).status_code == 200
        for connection in stalled:
            connection.settimeout(60)
            with connection, suppress(ConnectionError):
                answered = connection.recv(4096)
                assert answered[:12] in (b"", b"HTTP/1.1 408", b"HTTP/1.1 429", b"HTTP/1.1 400")
        assert requests.get(f"{url}/health", timeout=60).status_code == 200
