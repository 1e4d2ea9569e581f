"""The served process beside what a team may do to it, with the demo model.

Label Studio gives up on /health after 1 s and on /setup after 3 s, whatever else goes on.
"""

import asyncio
import json
import random
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.cli import demo_servers
from backend.label_studio.set_up import label_config
from clearclip_core import render_scene
from tests.backend.fakes.colour_segmenter import data_url
from tests.backend.prediction.annotator import keypoint
from tests.bench.conftest import Report
from tests.bench.timing import memory_mb, thread_count

CONFIG = label_config(["sky", "grass", "tree"])
BODY_MB, CLICKING, SILENT = 250, 30, 100
#: Connections that send hundreds of requests at once and read nothing, and how often.
GREEDY, PIPELINED = 40, 400
HUNG = 260  # pages that wait for Label Studio

#: The backend, which here predicts the first eight tasks of a request.
EIGHT_TASKS = (
    "from backend.web import ml_backend; ml_backend.MAX_TASKS = 8; "
    "from backend.__main__ import main; main()"
)

pytestmark = pytest.mark.timeout(900)


def picture(seed: int) -> str:
    return data_url(render_scene(seed, size_hw=(384, 512)).image, "jpeg")


def over_the_wire(method: str, path: str, body: bytes = b"") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: backend\r\nUser-Agent: heartex/1.23.2\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def retrieve() -> bytes:
    """A Retrieve with all old masks; its tasks repeat, and the first 8 are predicted."""
    random_ = random.Random(0)
    strokes = [{"value": {"rle": list(random_.randbytes(30_000))}} for _ in range(4)]
    task = json.dumps(
        {"data": {"image": picture(1)}, "annotations": [{"result": strokes}], "predictions": []}
    )[1:]
    tasks = ", ".join(f'{{"id": {n}, {task}' for n in range((BODY_MB << 20) // len(task)))
    rest = json.dumps({"project": "7.1", "label_config": CONFIG})[1:]
    return over_the_wire("POST", "/predict", f'{{"tasks": [{tasks}], {rest}'.encode())


def click(client: int) -> bytes:
    task = {"id": 1000 + client, "data": {"image": picture(client % 8)}}
    params = {"context": {"result": [keypoint(20 + client, 50, "sky")]}}
    body = {"tasks": [task], "project": "7.1", "label_config": CONFIG, "params": params}
    return over_the_wire("POST", "/predict", json.dumps(body).encode())


async def ask(port: int, request: bytes) -> tuple[float, int]:
    """Send a request; return the seconds until the answer, and its status."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for at in range(0, len(request), 1 << 20):
        writer.write(request[at : at + (1 << 20)])
        await writer.drain()
    answer = await reader.read()
    writer.close()
    return time.monotonic() - began, int(answer.split(maxsplit=2)[1])


async def ask_until(
    done: asyncio.Event, port: int, request: bytes, wait_s: float
) -> list[tuple[float, int]]:
    answers = []
    while not done.is_set():
        answers.append(await ask(port, request))
        await asyncio.sleep(wait_s)
    return answers


async def crowd(port: int) -> dict[str, list[tuple[float, int]]]:
    """Send two large Retrieves one after the other, beside clicks and silent connections."""
    done = asyncio.Event()
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(SILENT)]
    setup = json.dumps({"project": "7.1", "schema": CONFIG}).encode()
    requests = {
        "health": (over_the_wire("GET", "/health"), 0.2),
        "setup": (over_the_wire("POST", "/setup", setup), 0.2),
        **{f"click {n}": (click(n), 1.0) for n in range(CLICKING)},
    }
    asked = [asyncio.create_task(ask_until(done, port, *request)) for request in requests.values()]
    body = retrieve()
    answers = {"retrieve": [await ask(port, body) for _ in range(2)]}
    done.set()
    for (name, _), each in zip(requests.items(), asked, strict=True):
        answers.setdefault(name.partition(" ")[0], []).extend(await each)
    for _, writer in silent:
        writer.close()
    return answers


async def pipeline(port: int) -> None:
    """Send as many requests as are taken, and read nothing for 5 s."""
    request = b"GET /metrics HTTP/1.1\r\nHost: backend\r\n\r\n" * PIPELINED
    connections = [await asyncio.open_connection("127.0.0.1", port, limit=1) for _ in range(GREEDY)]
    for _, writer in connections:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request)
    await asyncio.sleep(5)
    assert (await ask(port, over_the_wire("GET", "/health")))[1] == 200
    for _, writer in connections:
        writer.transport.abort()


async def wait_for_pages(port: int) -> dict[str, list[tuple[float, int]]]:
    """Ask for many pages that wait for Label Studio, and for /health beside them."""
    done = asyncio.Event()
    health = asyncio.create_task(ask_until(done, port, over_the_wire("GET", "/health"), 0.2))
    pages = ["/projects/7", "/projects/7/review"] * (HUNG // 2)
    asked = [ask(port, over_the_wire("GET", page)) for page in pages]
    answers = {"page": await asyncio.gather(*asked)}
    done.set()
    return answers | {"health": await health}


@contextmanager
def serving(log: Path, **variables: str) -> Iterator[tuple[int, int]]:
    port = demo_servers.free_port(0)
    open_to_all = {"BASIC_AUTH_USER": "", "BASIC_AUTH_PASS": "", "OMP_WAIT_POLICY": "PASSIVE"}
    serve = ["serve", "--port", str(port), "--model", "demo"]
    with demo_servers.running(
        [sys.executable, "-c", EIGHT_TASKS, *serve],
        variables=open_to_all | variables,
        health=f"http://127.0.0.1:{port}/",
        log=log,
        timeout_s=120,
    ) as process:
        first: dict[str, Any] = {"tasks": [{"id": 1, "data": {"image": picture(0)}}]}
        url = f"http://127.0.0.1:{port}/predict"
        answer = httpx.post(url, json=first | {"label_config": CONFIG}, timeout=120)
        assert answer.status_code == 200
        yield port, process.pid


def test_server(report: Report, tmp_path: Path) -> None:
    with serving(tmp_path / "log") as (port, pid):
        before_mb = memory_mb(pid)
        answers = asyncio.run(crowd(port))
        peak_mb = memory_mb(pid, peak=True)
    beside = f"beside Retrieves of {BODY_MB} MB, {CLICKING} clients that click, {SILENT} silent"
    for kind, goal_s in (("health", 1), ("setup", 3), ("click", 0)):
        times = [seconds for seconds, _ in answers[kind]]
        report.add(
            f"/{kind} {beside}, longest",
            f"≤ {goal_s} s" if goal_s else "",
            f"{max(times):.2f} s",
            f"median {statistics.median(times):.3f} s of {len(times)}; {before_mb:.0f} MB before, "
            f"{peak_mb:.0f} MB at most",
        )
    for kind, each in answers.items():
        assert {status for _, status in each} == {200}, kind


def test_hanging_label_studio(report: Report, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as hangs:  # it answers nobody
        url = f"http://127.0.0.1:{hangs.getsockname()[1]}"
        reach = {"LABEL_STUDIO_URL": url, "LABEL_STUDIO_API_KEY": "0" * 40}
        with serving(tmp_path / "log", **reach) as (port, pid):
            idle = thread_count(pid)
            answers = asyncio.run(wait_for_pages(port))
    health = max(seconds for seconds, _ in answers["health"])
    report.add(
        f"/health beside {HUNG} pages at once while Label Studio hangs, longest",
        "≤ 1 s",
        f"{health:.2f} s",
        f"pages {max(seconds for seconds, _ in answers['page']):.0f} s at most; {idle} threads "
        "before",
    )
    assert health <= 1
    assert {status for _, status in answers["page"]} <= {200, 503}


def test_unread_answers(report: Report, tmp_path: Path) -> None:
    with serving(tmp_path / "log") as (port, pid):
        before = memory_mb(pid)
        asyncio.run(pipeline(port))
        grown_mb = memory_mb(pid, peak=True) - before
    report.add(
        f"memory for {GREEDY} clients that send {PIPELINED} requests at once and read nothing",
        "≤ 100 MB",
        f"{grown_mb:.0f} MB",
    )
    assert grown_mb <= 100
