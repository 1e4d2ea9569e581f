"""Several backends on one GPU and one database: a stand-in encoder takes 10 ms a picture.

The rest of a picture's way takes the interpreter of one process longer than that, so that further
backends answer more, as long as there are CPUs.
"""

from __future__ import annotations

import base64
import io
import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backend import create_app
from backend.inference.engine import Engine
from backend.settings import Settings
from clearclip_core import (
    SCENE_LABELS,
    DenseFeatures,
    PreparedImage,
    RGBArray,
    Segmenter,
    render_scene,
    set_pool_threads,
)
from tests.backend.fakes.colour_segmenter import brush_config
from tests.bench.conftest import Report
from tests.bench.timing import memory_mb

ENCODER_S, MEASURED_S, CLIENTS, SIZE_HW = 0.01, 6.0, 4, (1224, 1632)


class Standing(Segmenter):
    """The features of its first picture, after the time that a GPU would take."""

    first: list[DenseFeatures] | None = None

    def encode_batch(
        self, images: Sequence[PreparedImage], *arguments: Any, **named: Any
    ) -> list[DenseFeatures]:
        if self.first is None:
            self.first = super().encode_batch(images, *arguments, **named)
        time.sleep(ENCODER_S * len(images))  # it holds no interpreter
        return [self.first[0] for _ in images]


def jpeg(image: RGBArray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG")
    return file.getvalue()


def backend(number: int, database: str, begin: Barrier, results: Any) -> None:
    """Answer clients for some seconds; report pictures, processor time and peak memory in MB."""
    os.environ["DATABASE_URL"] = database
    set_pool_threads(1, 1)
    engine = Engine(lambda: Standing.load("demo", device="cpu", precision="fp32"), lambda: "demo")
    engine.start()
    app = create_app(Settings(threads=4 * CLIENTS), engine)
    image, config = render_scene(number, size_hw=SIZE_HW).image, brush_config(*SCENE_LABELS)
    pictures = [jpeg(np.roll(image, shift, 0)) for shift in range(16)]
    counts = [0] * CLIENTS

    def ask(client: int) -> None:
        count = CLIENTS * counts[client] + client
        # What follows the end of a JPEG makes another file of it: no answer is found ready.
        content = pictures[count % len(pictures)] + f"{number} {count}".encode()
        url = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
        task = {"id": 1 + count, "data": {"image": url}}
        body = {"tasks": [task], "label_config": config, "project": "1.7"}
        assert app.test_client().post("/predict", json=body).status_code == 200
        counts[client] += 1

    def answer(client: int) -> None:
        while time.perf_counter() < end:
            ask(client)

    ask(0)
    begin.wait()
    counts[0], began_s = 0, time.process_time()
    end = time.perf_counter() + MEASURED_S
    clients = [threading.Thread(target=answer, args=(client,)) for client in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    used_s = time.process_time() - began_s
    results.put((sum(counts), used_s, memory_mb(peak=True)))


def test_several_backends_answer_more(report: Report, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for count in (1, 2, 4):
        begin, results = context.Barrier(count), context.Queue()
        database = f"sqlite:///{tmp_path}/{count}.db"
        each = [
            context.Process(target=backend, args=(number, database, begin, results))
            for number in range(count)
        ]
        for process in each:
            process.start()
        found = [results.get(timeout=300) for _ in each]
        for process in each:
            process.join()
        pictures, used_s, memory_mb = (sum(column) for column in zip(*found, strict=True))
        report.add(
            f"{count} backends on one database, an encoder of 10 ms, pictures of 2 MP a second",
            "",
            f"{pictures / MEASURED_S:.1f}",
            f"{1000 * used_s / pictures:.0f} ms of processor time each, "
            f"{memory_mb:.0f} MB together, {os.cpu_count()} CPUs, {CLIENTS} clients each",
        )
