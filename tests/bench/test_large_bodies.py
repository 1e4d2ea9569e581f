"""One Retrieve with all old annotations, 256 MB, while others ask for /health and /setup.

Label Studio gives up on /health after 1 s and on /setup after 3 s, whatever else goes on.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path

from tests.bench.conftest import Report
from tests.bench.test_load import CONFIG, children, over_the_wire, picture, resident_mb, serving

BODY_MB = 256
#: Regions of the demo's size: bytes of brush RLE in each, and how many a task has.
RLE_BYTES, REGIONS = 30_000, 4


def retrieve(task_count: int, random_: random.Random) -> dict[str, object]:
    """Make the message of a Retrieve as Label Studio writes it, old masks included."""
    image = picture(10_000_300)
    tasks = []
    for number in range(task_count):
        regions = [
            {
                "id": f"region{number}{index}",
                "type": "brushlabels",
                "from_name": "mask",
                "to_name": "image",
                "original_width": 512,
                "original_height": 384,
                "image_rotation": 0,
                "value": {
                    "format": "rle",
                    "rle": list(random_.randbytes(RLE_BYTES)),
                    "brushlabels": ["sky"],
                },
            }
            for index in range(REGIONS)
        ]
        annotation = {"id": number, "created_ago": "1 day", "result": regions, "drafts": []}
        tasks.append(
            {"id": number, "data": {"image": image}, "annotations": [annotation], "predictions": []}
        )
    return {"tasks": tasks, "project": "7.1", "label_config": CONFIG, "params": {"context": None}}


def body_of(megabytes: int) -> bytes:
    """Return a request of this size; its tasks repeat, as only the first ones are made."""
    random_ = random.Random(0)
    message = retrieve(8, random_)
    tasks = json.dumps(message["tasks"])[1:-1]
    rest = json.dumps({key: value for key, value in message.items() if key != "tasks"})[1:]
    copies = max(1, (megabytes << 20) // len(tasks) - 1)
    return f'{{"tasks": [{", ".join([tasks] * copies)}], {rest}'.encode()


async def ask_again_and_again(kind: str, port: int, done: asyncio.Event) -> list[float]:
    """Ask on a connection each, five times a second, until an event."""
    asked = over_the_wire("GET", "/health") if kind == "health" else setup_request()
    seconds = []
    while not done.is_set():
        started = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asked)
        answer = await reader.read()
        writer.close()
        seconds.append(time.monotonic() - started)
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        await asyncio.sleep(0.2)
    return seconds


def setup_request() -> bytes:
    return over_the_wire("POST", "/setup", {"project": "7.1", "schema": CONFIG})


async def measure(port: int, pid: int, body: bytes) -> tuple[list[float], list[float], float]:
    """Return the seconds of /health and of /setup, and the memory that the body took in MB."""
    done = asyncio.Event()
    before = memory_mb(pid)
    most = before

    async def send() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            "POST /predict HTTP/1.1\r\nHost: backend\r\nUser-Agent: heartex/1.23.2\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode())
        for at in range(0, len(body), 1 << 20):
            writer.write(body[at : at + (1 << 20)])
            await writer.drain()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        writer.close()
        done.set()

    async def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, memory_mb(pid))
            await asyncio.sleep(0.1)

    health, setup, _, _ = await asyncio.gather(
        ask_again_and_again("health", port, done),
        ask_again_and_again("setup", port, done),
        send(),
        watch(),
    )
    return health, setup, most - before


def memory_mb(pid: int) -> float:
    return sum(map(resident_mb, [pid, *children(pid)]))


def test_large_bodies(report: Report, tmp_path: Path) -> None:
    one = retrieve(1, random.Random(0))
    with serving(tmp_path / "log", one, "--max-tasks", "8") as (port, pid):
        body = body_of(BODY_MB)
        started = time.monotonic()
        health, setup, grown_mb = asyncio.run(measure(port, pid, body))
    detail = f"{len(body) / (1 << 20):.0f} MB, answered in {time.monotonic() - started:.1f} s"
    report.add(
        "/health during one Retrieve of 256 MB, longest", "< 0.5 s", f"{max(health):.2f} s", detail
    )
    report.add(
        "/setup during that, longest", "< 1 s", f"{max(setup):.2f} s", f"{len(setup)} requests"
    )
    report.add(
        "memory that the body takes, against its size",
        "≤ 3",
        f"{grown_mb / len(body) * (1 << 20):.2f}",
        f"{grown_mb:.0f} MB",
    )
