"""A process from its start to its first answer and first prediction; its memory over thousands."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import requests

from backend.cli.demo_servers import free_port, running
from clearclip_core import render_scene
from tests.backend.fakes.colour_segmenter import brush_config, data_url
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.bench.conftest import Report
from tests.bench.timing import answers, cpu_s, memory_mb

TASKS = 100
SIZE_HW = (1000, 1000)


def wait_until(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> str:
    """Return the time since the process was started, once a condition holds."""
    started = time.monotonic()
    while not condition():
        assert process.poll() is None
        time.sleep(0.02)
    return f"{time.monotonic() - started:.1f} s, {cpu_s(process.pid):.1f} CPU s"


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "backend", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_server_starts(report: Report) -> None:
    port = free_port(0)
    url = f"http://127.0.0.1:{port}"
    with start("serve", "--model", "demo", "--port", str(port)) as process:
        health = wait_until(process, lambda: answers(f"{url}/health"))
        ready = wait_until(process, lambda: answers(f"{url}/") and answers(f"{url}/ready"))
        process.terminate()
    report.add("serve, from its start to /health", "2 s", health, "SQLite")
    report.add("from there to /ready", "", ready, "demo model; processor time from the start on")


def test_a_job_stores_its_first_prediction(report: Report, tmp_path: Path) -> None:
    scene = np.asarray(render_scene(3, size_hw=SIZE_HW).image)
    tasks = {task: {"image": data_url(scene)} for task in range(1, TASKS + 1)}
    studio = FakeStudio(brush_config("sky", "grass", "tree"), tasks)
    with studio.served() as server:
        reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
        where = ["--model", "demo", "--database-url", f"sqlite:///{tmp_path}/start.db"]
        with start("prelabel", "--project", "7", *reach, *where) as process:
            first = wait_until(process, lambda: bool(studio.imports))
            process.terminate()
    report.add(
        "prelabel, from its start to the first prediction in Label Studio",
        "seconds",
        first,
        f"demo model, {SIZE_HW[1]}×{SIZE_HW[0]} px, a stand-in for Label Studio",
    )


PREDICTIONS = 3000
AT_ONCE = 4
SMALL_HW = (192, 256)
#: Caches that are full after the first predictions: what grows then is a leak.
CACHE_MB = 8


def test_memory_is_flat(report: Report, tmp_path: Path) -> None:
    port = free_port(0)
    url = f"http://127.0.0.1:{port}"
    config = brush_config("sky", "grass", "tree")
    rng = np.random.default_rng(0)
    at: list[int] = []
    used_mb: list[float] = []
    with running(
        [sys.executable, "-m", "backend", "serve", "--model", "demo", "--port", str(port)],
        variables={
            "DATABASE_URL": f"sqlite:///{tmp_path}/memory.db",
            "FEATURE_CACHE_MB": str(CACHE_MB),
        },
        health=f"{url}/",
        log=tmp_path / "log",
        timeout_s=120,
    ) as process:
        for first in range(0, PREDICTIONS, AT_ONCE):
            noise = rng.integers(0, 255, (AT_ONCE, *SMALL_HW, 3), np.uint8)
            tasks = [
                {"id": number, "data": {"image": data_url(picture)}}
                for number, picture in enumerate(noise, first)
            ]
            body = {"tasks": tasks, "label_config": config, "project": "7.1"}
            answer = requests.post(f"{url}/predict", json=body, timeout=300)
            assert len(answer.json()["results"]) == AT_ONCE
            at.append(first + AT_ONCE)
            used_mb.append(memory_mb(process.pid))
    late = len(at) // 3
    slope_mb, _ = np.polyfit(np.array(at[late:]) / 1000, used_mb[late:], 1)
    report.add(
        f"memory over {PREDICTIONS:,} predictions, growth in the last two thirds",
        "flat",
        f"{slope_mb:+.1f} MB for each 1,000",
        f"{used_mb[0]:.0f} MB after the first {AT_ONCE}, {used_mb[late]:.0f} after a third, "
        f"{used_mb[-1]:.0f} at the end; demo model, {SMALL_HW[1]}×{SMALL_HW[0]} px, "
        f"{CACHE_MB} MB of features",
    )
