"""Two hundred webhooks a second against the served process, which then reads their annotations.

Label Studio waits for each webhook, up to 1 s, before it responds to the annotator.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from label_studio_sdk.converter import brush

from backend.cli import demo_servers, server_process
from backend.cli.label_config import label_config
from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from clearclip_core import render_scene
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.bench.conftest import Report

A_SECOND = 200
SECONDS = 10
CONFIG = label_config(["sky", "grass", "tree"])


def regions() -> list[dict[str, Any]]:
    """Return six masks of a drawn scene as regions of an annotation."""
    label_map = render_scene(3, size_hw=(768, 1024)).label_map
    found = np.unique(label_map)[:6]
    return [
        {
            "id": f"region-{index}",
            "type": "brushlabels",
            "from_name": "mask",
            "to_name": "image",
            "original_width": 1024,
            "original_height": 768,
            "value": {
                "format": "rle",
                "rle": brush.mask2rle((label_map == index).astype(np.uint8) * 255),
                "brushlabels": ["sky"],
            },
        }
        for index in found
    ]


async def send(port: int, raw: bytes, at: float, seconds: list[float]) -> int:
    """One message at its time, on a connection of its own, as Label Studio does."""
    await asyncio.sleep(max(0.0, at - time.monotonic()))
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    answer = await reader.read()
    writer.close()
    seconds.append(time.monotonic() - started)
    return int(answer.split()[1])


def test_a_burst_of_webhooks(report: Report, tmp_path: Path) -> None:
    studio = FakeStudio(CONFIG, {1: {"image": "1.png"}})
    result = regions()
    ids = [studio.annotate(1, result)["id"] for _ in range(A_SECOND)]
    messages = []
    for id_ in ids:
        annotation = studio.annotations[id_]
        message = {
            "action": "ANNOTATION_UPDATED",
            "annotation": annotation,
            "project": {"id": 7, "label_config": CONFIG},
            "task": {"id": 1},
        }
        content = json.dumps(message).encode()
        head = f"POST /webhook HTTP/1.1\r\nHost: b\r\nContent-Length: {len(content)}\r\n"
        messages.append(head.encode() + b"Connection: close\r\n\r\n" + content)
    seconds: list[float] = []
    port = server_process.free_port(0)
    with studio.served() as server:
        reach = demo_servers.LabelStudioProcess(server.url, token=TOKEN)
        log = tmp_path / "log"
        with demo_servers.served_backend(reach, model="demo", port=port, log=log):
            while httpx.get(f"http://127.0.0.1:{port}/ready", timeout=30).status_code != 200:
                time.sleep(0.5)

            async def burst() -> list[int]:
                start = time.monotonic() + 0.5
                count = A_SECOND * SECONDS
                at = [start + number / A_SECOND for number in range(count)]
                sends = (
                    send(port, messages[number % A_SECOND], at[number], seconds)
                    for number in range(count)
                )
                return list(await asyncio.gather(*sends))

            statuses = asyncio.run(burst())
            annotations = AnnotationStore(
                Database(f"sqlite:///{log.with_suffix('.db')}"), "who looks"
            )
            end = time.monotonic() + 120
            while annotations.count_open() and time.monotonic() < end:
                time.sleep(0.5)
            read = len(annotations.read(7))
    assert set(statuses) == {200}
    assert read == A_SECOND
    cuts = statistics.quantiles(seconds, n=100)
    worst = (
        f"p50 {1000 * cuts[49]:.0f}, p99 {1000 * cuts[98]:.0f}, max {1000 * max(seconds):.0f} ms"
    )
    report.add(
        f"webhooks, {A_SECOND} a second for {SECONDS} s",
        "100 ms",
        worst,
        f"{len(messages[0]) // 1000} kB each, of {A_SECOND} annotations, SQLite; {len(statuses)} "
        f"answered, then {read} annotations read",
    )
