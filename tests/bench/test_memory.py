"""The memory of a served backend over thousands of predictions of pictures that it never saw."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import requests

from backend.cli.demo_servers import free_port, running
from tests.backend.fakes.colour_segmenter import brush_config, data_url
from tests.bench.conftest import Report
from tests.bench.timing import memory_mb

PREDICTIONS = 3000
AT_ONCE = 4
SIZE_HW = (192, 256)
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
            tasks = [
                {
                    "id": first + each,
                    "data": {"image": data_url(rng.integers(0, 255, (*SIZE_HW, 3), np.uint8))},
                }
                for each in range(AT_ONCE)
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
        f"{used_mb[-1]:.0f} at the end; demo model, {SIZE_HW[1]}×{SIZE_HW[0]} px, "
        f"{CACHE_MB} MB of features",
    )
