"""Everything that can be seen, without waiting for anything."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.errors import ImageNotFound
from backend.feedback.learning.version_registry import VersionRegistry
from backend.inference.engine import Engine
from backend.inference.image_request import Priority
from backend.jobs.job_store import JobStore
from backend.label_studio.files import LabelStudioFiles
from backend.label_studio.image_loader import ImageReader
from backend.label_studio.requests import Task
from backend.prediction.deadline import DeadlineRunner
from backend.prediction.failures import FailureStore
from backend.prediction.outbox import PredictionOutbox
from backend.prediction.task_runner import Outcome
from backend.settings import Settings
from backend.telemetry.task_tracker import TaskTracker
from backend.telemetry.tracing import stage
from backend.web.pages.status import StatusReport, package_versions
from clearclip_core import Label
from tests.backend.fakes.colour_segmenter import ColourSegmenter, colour_engine, flag

KEY = "0123456789abcdef0123456789abcdef01234567"


class Scene:
    """The parts of a backend, and their status report."""

    def __init__(self, engine: Engine | None = None, store: JobStore | None = None) -> None:
        self.engine = engine or colour_engine()
        self.tracker, self.store = TaskTracker(), store or JobStore.from_settings(Settings())
        self.files = LabelStudioFiles("http://label-studio:8080", KEY)
        settings = Settings(
            model="demo", label_studio_url="http://label-studio:8080", label_studio_api_key=KEY
        )
        self.results = PredictionOutbox(self.store, "us")
        self.pending = DeadlineRunner(FailureStore(self.store), self.results, 80)
        self.reader = ImageReader(self.files, settings)
        self.status = StatusReport(
            settings,
            self.engine,
            self.tracker,
            self.store,
            self.results,
            self.pending,
            self.files,
            self.reader,
            VersionRegistry(self.store, lambda: "model"),
        )

    def read(self) -> dict[str, Any]:
        """What a client would get."""
        now: dict[str, Any] = json.loads(json.dumps(self.status.read()))
        return now


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
            target=scene.engine.score, args=(picture, (Label("red"),), Priority.OPENED, project)
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

    def work(task: Task) -> Outcome:
        assert gate.wait(20)
        return Outcome({"result": []})

    tasks = [Task(number, 7, {}) for number in range(10)]
    batch = threading.Thread(target=scene.pending.outcomes, args=(tasks, "v", 7, work))
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


def test_what_runs_and_what_failed_is_linked_to_label_studio() -> None:
    scene = Scene()
    with scene.tracker.task(5, 7, "batch") as work:
        work.failed(ImageNotFound("There is no file at /data/upload/7/a.png."))
    with scene.tracker.task(6, 7, "opened"), stage("model"):
        now = scene.read()
    (running,) = now["running"]
    assert (running["task"], running["stage"]) == (6, "model")
    assert running["url"] == "http://label-studio:8080/projects/7/data?task=6"
    (error,) = now["errors"]
    assert error["url"] == "http://label-studio:8080/projects/7/data?task=5"
    assert error["sentence"] == "There is no file at /data/upload/7/a.png."
    assert now["projects"] == [{"project": 7, "done": 0, "failed": 1}]


def test_links_go_where_label_studio_says_that_browsers_find_it() -> None:
    scene = Scene()
    scene.files.learn("https://studio.example.com/", "")
    assert scene.read()["label_studio"] == "https://studio.example.com"


@pytest.mark.parametrize("hostname", ["javascript:alert(1)", "data:text/html,x", "//x", "x"])
def test_nothing_but_web_addresses_is_linked_to(hostname: str) -> None:
    scene = Scene()
    scene.files.learn(hostname, "")
    assert scene.read()["label_studio"] == "http://label-studio:8080"


def test_jobs_come_with_what_remains_and_when_they_end() -> None:
    now = [1000.0]
    scene = Scene(store=JobStore("sqlite://", clock=lambda: now[0]))
    over = scene.store.start_job(3)
    scene.store.cancel(over.id)
    running = scene.store.start_job(7, only="all", limit=50)
    scene.store.lease_job("worker")
    now[0] += 10
    scene.store.advance(running.id, "worker", total=100, done=20, failures=[(5, "Gone.")])
    scene.store.start_job(8, tasks=[1, 2, 3])
    read = scene.read()
    assert [job["state"] for job in read["jobs"]] == ["queued", "running", "cancelled"]
    queued, job, _ = read["jobs"]
    assert queued["tasks"] == 3
    assert (job["project"], job["filter"], job["limit"]) == (7, "all", 50)
    assert (job["total"], job["done"], job["failed"], job["remaining"]) == (100, 20, 1, 79)
    assert job["rate"] == pytest.approx(2.0)
    assert read["eta_s"] == pytest.approx(39.5)
    assert read["remaining"] == 79
    (error,) = read["errors"]
    assert (error["task"], error["project"], error["job"]) == (5, 7, running.id)


def test_a_task_that_failed_in_a_job_is_named_once() -> None:
    scene = Scene()
    job = scene.store.start_job(7)
    scene.store.lease_job("worker")
    scene.store.advance(job.id, "worker", failures=[(5, "Gone."), (6, "Gone.")])
    with scene.tracker.task(5, 7, "batch") as work:
        work.failed(ImageNotFound("Gone."))
    for _ in range(3):  # it is tried again
        with scene.tracker.task(5, 7, "batch") as work:
            work.failed(ImageNotFound("Gone."))
    FailureStore(scene.store).add([(6, "Gone.")])
    errors = {error["task"]: error for error in scene.read()["errors"]}
    assert sorted(errors) == [5, 6]
    assert len(scene.read()["errors"]) == 2
    assert (errors[5]["project"], errors[5]["job"]) == (7, job.id)
    assert errors[6]["url"] == "http://label-studio:8080/projects/7/data?task=6"


def test_a_database_that_is_gone_hides_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"this is no database" * 100)
    scene = Scene(store=JobStore(f"sqlite:///{tmp_path}/jobs.db"))
    now = scene.read()
    assert now["jobs"] == []
    assert now["jobs_trouble"] == "The database of jobs cannot be read: DatabaseError."
    assert now["model"]["state"] == "ready"


def test_no_secret_is_seen() -> None:
    scene = Scene()
    with scene.tracker.task(f"\n{KEY}", 7, "batch") as work:
        work.failed(RuntimeError(f"refused {KEY} at http://a:hunter2@host/"))
    text = json.dumps(scene.status.read())
    assert KEY not in text
    assert "hunter2" not in text


def test_long_names_of_tasks_are_cut_off() -> None:
    scene = Scene()
    with scene.tracker.task("x" * 99 + KEY, 7, "batch") as work:
        work.failed(ImageNotFound("Gone."))
    (error,) = scene.read()["errors"]
    assert error["task"] == "x" * 99 + "…"


def test_versions_name_what_is_not_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.web.pages.status._PACKAGES", ("torch", "no-such-package-here"))
    assert package_versions()["no-such-package-here"] == ""
