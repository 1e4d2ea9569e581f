"""The status of all parts, without waiting for any."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch

from backend.database.database import Database
from backend.inference.engine import Engine
from backend.inference.queue import Priority
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.prediction.batches import Outcome
from backend.prediction.images import PredictionSpec
from backend.web.pages.status import package_versions
from clearclip_core import Label
from tests.backend.fakes.colour_segmenter import (
    ColourSegmenter,
    brush_config,
    colour_engine,
    flag,
)
from tests.backend.web.pages.status_scene import Scene


def test_a_fresh_backend() -> None:
    now = Scene().read()
    assert now["model"]["name"] == "demo"
    assert (now["model"]["state"], now["model"]["device"]) == ("ready", "cpu")
    assert now["queue"] == {"interactive": 0, "opened": 0, "batch": 0}
    assert (now["done"], now["failed"], now["remaining"], now["eta_s"]) == (0, 0, 0, None)
    assert now["jobs"] == now["running"] == now["errors"] == now["waiting"] == []
    kept = {"hits": 0, "misses": 0, "bytes": 0, "limit_bytes": 256 << 20}
    assert now["caches"]["pictures"] == kept
    assert now["versions"]["torch"] == torch.__version__


def test_it_waits_for_no_model() -> None:
    """Neither for one that loads, nor for one that is busy."""
    may_load = threading.Event()

    def load() -> Any:
        assert may_load.wait(20)
        return ColourSegmenter()

    with Engine(load, lambda: "m") as engine:
        assert Scene(engine).read()["model"]["state"] == "loading"
        may_load.set()

    segmenter = ColourSegmenter()
    scene = Scene(colour_engine(segmenter))
    segmenter.gate.clear()
    pictures = [segmenter.prepare(flag("red", size_hw=(2, width))) for width in (3, 4)]
    threads = [
        threading.Thread(
            target=scene.engine.encode, args=(picture, (Label("red"),), Priority.OPENED, project)
        )
        for picture, project in zip(pictures, (8, 9), strict=True)
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 20
    while scene.read()["remaining"] < 2 and time.monotonic() < end:
        time.sleep(0.01)
    now = scene.read()
    assert now["queue"] == {"interactive": 0, "opened": 2, "batch": 0}
    assert sorted((line["project"], line["count"]) for line in now["waiting"]) == [(8, 1), (9, 1)]
    segmenter.gate.set()
    for thread in threads:
        thread.join(20)


def test_tasks_of_batches_wait_too_but_are_not_counted_beside_their_job() -> None:
    scene = Scene()
    gate = threading.Event()

    def work(task: Task, spec: PredictionSpec) -> Outcome:
        assert gate.wait(20)
        return Outcome({"result": []})

    tasks = [Task(number, 7, {}) for number in range(10)]
    spec = PredictionSpec(parse_label_config(brush_config("red")), "v", Priority.BATCH, 7)
    batch = threading.Thread(target=scene.task_runner.run, args=(tasks, spec, work))
    batch.start()
    end = time.monotonic() + 20
    while scene.read()["remaining"] < 10 and time.monotonic() < end:
        time.sleep(0.01)
    now = scene.read()
    assert now["waiting"] == [{"urgency": "batch", "project": 7, "count": 10}]
    assert now["remaining"] == 10
    job = scene.store.start_job(7)
    scene.store.lease_job("worker")
    scene.store.advance(job.id, "worker", total=100, done=60)
    assert scene.read()["remaining"] == 40
    gate.set()
    batch.join(20)
    end = time.monotonic() + 20  # the last thread may have to say so yet
    while scene.read()["waiting"] and time.monotonic() < end:
        time.sleep(0.01)
    assert scene.read()["waiting"] == []


def test_jobs_come_with_what_remains_and_when_they_end() -> None:
    now = [1000.0]
    scene = Scene(database=Database("sqlite://", clock=lambda: now[0]))
    over = scene.store.start_job(3)
    scene.store.cancel(over.id)
    running = scene.store.start_job(7, only="all", limit=50)
    scene.store.lease_job("worker")
    now[0] += 10
    scene.store.advance(running.id, "worker", total=100, done=20, failures=[(5, "Gone.")])
    scene.store.start_job(8, kind="new", tasks=[1, 2, 3])
    read = scene.read()
    assert [job["state"] for job in read["jobs"]] == ["queued", "running", "cancelled"]
    queued, job, _ = read["jobs"]
    assert queued["kind"] == "new"
    assert (job["project"], job["filter"], job["limit"]) == (7, "all", 50)
    assert (job["total"], job["done"], job["failed"], job["remaining"]) == (100, 20, 1, 79)
    assert job["rate"] == pytest.approx(2.0)
    assert read["eta_s"] == pytest.approx(39.5)
    assert read["remaining"] == 79
    (error,) = read["errors"]
    assert (error["task"], error["project"], error["job"]) == (5, 7, running.id)


def test_versions_name_what_is_not_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.web.pages.status._PACKAGES", ("torch", "no-such-package-here"))
    assert package_versions()["no-such-package-here"] == ""
