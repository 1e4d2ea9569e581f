"""Two hundred clients at once for a minute, against the served process with the demo model.

Beside them are clients that never read their answer, and clients that never finish a request.
Label Studio gives up on /health after 1 s and on /setup after 3 s, whatever else goes on.

`CLEARCLIP_LOAD_S` is how long it lasts, in seconds. `CLEARCLIP_LOAD_HOSTILE=1` adds clients that
send what nobody sends by mistake: bodies of very many tiny values, bodies that are nested deep or
stop half-way, bad chunk sizes, contexts of thousands of boxes, and wrong names of the host.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from backend.cli import server_process
from backend.cli.label_config import label_config
from clearclip_core import render_scene
from tests.bench.conftest import Report

SECONDS = int(os.environ.get("CLEARCLIP_LOAD_S", "60"))
IS_HOSTILE = os.environ.get("CLEARCLIP_LOAD_HOSTILE") == "1"
#: Kind of request -> number of clients; each sends the next request 1 s after its last response.
CLIENTS = {"health": 80, "setup": 60, "interactive": 40, "batch": 20}
#: Clients that ask for predictions and never read, and that send half the head of a request.
NEVER_READ, HALF_HEADS = 100, 200
#: Clients that send each kind of hostile request.
HOSTILE = 2
#: The address of all these, on Linux: the server tells them from the other clients by it.
ELSEWHERE = "127.0.0.2"
CONFIG = label_config(["sky", "grass", "tree"])


@dataclass
class Measured:
    """Response times and errors of the clients, and the server's memory."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {k: [] for k in CLIENTS})
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)  # tasks, by kind of request
    memory_mb: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)


def picture(seed: int) -> str:
    file = io.BytesIO()
    Image.fromarray(render_scene(seed, size_hw=(384, 512)).image).save(file, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def requests_of(kind: str, pictures: list[str], client: int) -> list[bytes]:
    """Prepare the requests of a client as bytes, so that it only sends.

    Args:
        kind: of the client.
        pictures: of the tasks.
        client: its number. No other client's batches have its tasks: a prediction is handed to one
            of those who ask for its task at the same time.
    """
    if kind == "health":
        return [over_the_wire("GET", "/health")]
    if kind == "setup":
        return [over_the_wire("POST", "/setup", {"project": "7.1", "schema": CONFIG})]
    body: dict[str, Any] = {"label_config": CONFIG, "project": "7.1"}
    if kind == "batch":
        first = client * len(pictures)
        tasks = [{"id": n, "data": {"image": image}} for n, image in enumerate(pictures, first)]
        return [over_the_wire("POST", "/predict", body | {"tasks": tasks})]
    return [
        over_the_wire("POST", "/predict", body | {"tasks": [task], "params": {"context": context}})
        for image in pictures
        for x, y in product((20, 50, 80), repeat=2)
        for task in [{"id": 1, "data": {"image": image}}]
        for context in [{"result": [click(x, y)]}]
    ]


def click(x: int, y: int) -> dict[str, Any]:
    value = {"x": x, "y": y, "keypointlabels": ["sky"]}
    return {"type": "keypointlabels", "from_name": "click", "to_name": "image", "value": value}


def hostile_requests() -> list[bytes]:
    """Return requests that are refused, each at another place."""
    box = {"type": "rectanglelabels", "value": {"x": 1, "y": 1, "width": 5, "height": 5}}
    body: dict[str, Any] = {"tasks": [{"id": 1, "data": {}}], "label_config": CONFIG}
    predict = over_the_wire("POST", "/predict", body)
    many_labels = "".join(f'<Label value="{number}"/>' for number in range(10_000))
    return [
        over_the_wire("POST", "/predict", {"tasks": [[]] * 700_000}),
        over_the_wire("POST", "/predict", body | {"params": {"context": {"result": [box] * 3000}}}),
        over_the_wire("POST", "/setup", {"schema": CONFIG.replace("<Label ", many_labels, 1)}),
        over_the_wire("POST", "/predict").replace(b"Length: 0", b"Length: 200000") + b"[" * 200_000,
        predict[: len(predict) // 2],
        predict.partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        over_the_wire("GET", "/status").replace(b"Host: backend", b"Host: elsewhere.example.com"),
    ]


def over_the_wire(method: str, path: str, body: Any = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    return (
        f"{method} {path} HTTP/1.1\r\nHost: backend\r\nUser-Agent: heartex/1.23.2\r\n"
        f"Connection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode() + content


async def client(kind: str, port: int, asked: list[bytes], end: float, measured: Measured) -> None:
    """A connection for each request, as Label Studio does."""
    await asyncio.sleep(random.random())
    while time.monotonic() < end:
        started = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(random.choice(asked))
        answer = await reader.read()
        writer.close()
        measured.seconds[kind].append(time.monotonic() - started)
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        measured.statuses[kind, status] += 1
        if kind in ("interactive", "batch") and status == 200:
            measured.predicted[kind] += sum(map(bool, json.loads(body)["results"]))
        await asyncio.sleep(1)


async def bad_client(port: int, sent: bytes, end: float) -> None:
    """Send this again and again, each time until the server ends the connection; read nothing."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(random.random())
    while time.monotonic() < end:
        with socket.socket() as connection, suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.bind((ELSEWHERE, 0))
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", port))
            await loop.sock_sendall(connection, sent)
            while time.monotonic() < end and not is_closed(connection):
                await asyncio.sleep(0.5)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has ended a connection, without reading what it has sent."""
    state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state != 1  # TCP_ESTABLISHED


async def stall(end: float, measured: Measured) -> None:
    """How late this process itself comes: its clients measure that, too."""
    while time.monotonic() < end:
        started = time.monotonic()
        await asyncio.sleep(0.02)
        measured.stalls.append(time.monotonic() - started - 0.02)


async def watch(pid: int, end: float, measured: Measured) -> None:
    while time.monotonic() < end:
        measured.memory_mb.append(sum(map(resident_mb, [pid, *children(pid)])))
        await asyncio.sleep(1)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def load(port: int, pid: int, pictures: list[str]) -> Measured:
    measured = Measured()
    clients = [(kind, number) for kind, count in CLIENTS.items() for number in range(1, count + 1)]
    bad = requests_of("batch", pictures, 0) * NEVER_READ
    bad += [b"GET /health HTTP/1.1\r\nHost: x\r\nX-"] * HALF_HEADS
    if IS_HOSTILE:
        bad += hostile_requests() * HOSTILE
    end = time.monotonic() + SECONDS
    await asyncio.gather(
        watch(pid, end, measured),
        stall(end, measured),
        *(bad_client(port, sent, end) for sent in bad),
        *(
            client(kind, port, requests_of(kind, pictures, number), end, measured)
            for kind, number in clients
        ),
    )
    return measured


@contextmanager
def serving(log: Path, first: dict[str, object], *options: str) -> Iterator[tuple[int, int]]:
    """Serve the demo model until the context ends.

    Args:
        log: the file for what the server logs.
        first: a request for predictions, which is answered once the model has loaded.
        options: more options of ``serve``.

    Yields:
        The port and the process id.
    """
    port = server_process.free_port(0)
    url = f"http://127.0.0.1:{port}"
    serve = ["serve", "--port", str(port), "--model", "demo", *options]
    with server_process.running(
        [sys.executable, "-m", "backend", *serve],
        variables={"BASIC_AUTH_USER": "", "BASIC_AUTH_PASS": ""},
        health=f"{url}/",
        log=log,
        timeout_s=120,
    ) as process:
        assert httpx.post(f"{url}/predict", json=first, timeout=120).status_code == 200
        yield port, process.pid


def over(times: list[float], limit_s: float) -> float:
    """Return the share of times above a limit."""
    return sum(each > limit_s for each in times) / len(times)


def test_load(report: Report, tmp_path: Path) -> None:
    pictures = [picture(10_000_300 + n) for n in range(8)]
    one = {"tasks": [{"id": 1, "data": {"image": pictures[0]}}], "label_config": CONFIG}
    with serving(tmp_path / "log", one) as (port, pid):
        measured = asyncio.run(load(port, pid, pictures))
    errors = {key: n for key, n in measured.statuses.items() if key[1] >= 500}
    for kind, goal in (("health", "< 1 s always"), ("setup", "< 3 s always"), ("interactive", "")):
        times = measured.seconds[kind]
        report.add(
            f"/{kind} with {sum(CLIENTS.values())} clients, {NEVER_READ} that never read and "
            f"{HALF_HEADS} that send half a head{', and hostile ones' * IS_HOSTILE}, longest in "
            f"{SECONDS} s, demo model",
            goal,
            f"{max(times):.2f} s",
            f"median {statistics.median(times):.3f} s, {over(times, 1):.1%} over 1 s, "
            f"{len(times)} requests; the clients' own process came up to "
            f"{max(measured.stalls):.2f} s late; load of the machine {os.getloadavg()[1]:.0f}",
        )
    refused = sum(n for (_, status), n in measured.statuses.items() if status == 429)
    report.add(
        f"answers of 500 and more, {sum(measured.statuses.values())} requests",
        "0",
        str(sum(errors.values())),
        f"{refused} answers of 429",
    )
    report.add(
        f"tasks of batches that were predicted beside {CLIENTS['interactive']} clients that click",
        "> 0",
        str(measured.predicted["batch"]),
        f"{measured.predicted['interactive']} clicks were answered",
    )
    third = len(measured.memory_mb) // 3
    first, last = (
        statistics.mean(part)
        for part in (measured.memory_mb[third : 2 * third], measured.memory_mb[2 * third :])
    )
    report.add(
        "memory of the server in the last third of that, against the one before",
        "≤ 105 %",
        f"{last / first:.1%}",
        f"{first:.0f} MB, {last:.0f} MB",
    )
    assert not errors
    assert measured.predicted["batch"]
