"""The status of a backend: what runs, what remains, and what has failed."""

import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backend.database.database import Database
from backend.inference.queue import Priority
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.prediction.batches import Outcome
from backend.prediction.images import PredictionSpec
from backend.projects.failures import FailureStore
from backend.services import Services
from backend.settings import Settings
from backend.telemetry.task_tracker import TaskTracker
from backend.web.pages.status import StatusReport
from tests.backend.fakes.colour_segmenter import ColourSegmenter, brush_config, colour_engine
from tests.backend.fakes.waiting import wait_for
from tests.backend.web.browser import KEY

STUDIO_URL = "http://label-studio:8080"


class Scene:
    def __init__(self, database: Database | None = None) -> None:
        studio: Any = {"label_studio_url": STUDIO_URL, "label_studio_api_key": KEY}
        settings = Settings(model="demo", **studio)
        self.segmenter = ColourSegmenter()
        self.services = Services(settings, colour_engine(self.segmenter))
        if database is not None:
            vars(self.services)["database"] = database  # in place of the cached one
        self.store, self.tracker = self.services.store, TaskTracker()
        self.status = StatusReport(self.services, self.tracker)

    def read(self) -> dict[str, Any]:
        now: dict[str, Any] = json.loads(msgspec.json.encode(self.status.read()))
        return now


def test_tasks_of_batches_wait_too_but_are_not_counted_beside_their_job() -> None:
    scene = Scene()
    gate = threading.Event()

    def work(task: Task, spec: PredictionSpec) -> Outcome:
        assert gate.wait(60)
        return Outcome({"result": []})

    tasks = [Task(number, 7, {}) for number in range(10)]
    spec = PredictionSpec(parse_label_config(brush_config("red"), None), "v", Priority.BATCH, 7)
    run = scene.services.task_runner.run
    batch = threading.Thread(target=run, args=(tasks, spec, work))
    batch.start()
    wait_for(lambda: scene.read()["remaining"] == 10)
    assert scene.read()["waiting"] == [{"urgency": "batch", "project": 7, "count": 10}]
    job = scene.store.start_job(7)
    scene.store.lease_job("worker")
    scene.store.advance(job.id, "worker", total=100, done=60)
    assert scene.read()["remaining"] == 40
    gate.set()
    batch.join(60)
    scene.store.cancel(job.id)
    wait_for(lambda: scene.read()["remaining"] == 0)
    assert scene.read()["waiting"] == []


def test_jobs_come_with_what_remains_and_when_they_end() -> None:
    now = [1000.0]
    scene = Scene(Database("sqlite://", clock=lambda: now[0]))
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
    assert (queued["kind"], job["project"], job["filter"], job["limit"]) == ("new", 7, "all", 50)
    assert (job["total"], job["done"], job["failed"], job["remaining"]) == (100, 20, 1, 79)
    assert (job["rate"], read["eta_s"], read["remaining"]) == pytest.approx((2.0, 39.5, 79))
    (error,) = read["errors"]
    assert (error["task"], error["project"], error["job"]) == (5, 7, running.id)
    scene.services.connection_watch._trouble = "Label Studio is away."
    assert scene.read()["eta_s"] is None


def test_tasks_without_a_prediction_are_named_once_with_their_newest_reason() -> None:
    scene = Scene()
    job = scene.store.start_job(7)
    scene.store.lease_job("worker")
    scene.store.advance(job.id, "worker", failures=[(5, "Gone."), (6, "Gone.")])
    failures = FailureStore(scene.store.database)
    failures.add([(number, "Gone.") for number in range(7, 29)], project=7)
    scene.store.start_job(8)
    failures.add([(99, "Gone.")], project=8)
    scene.services.change_poller.polls.add(9, 0)
    failures.add([(98, "Gone.")], project=9)
    failures.add([(6, "There is no file.")])
    failures.solve([7, 8])
    vars(scene.services.connection_watch)["_titles"] = {7: "Streets"}
    now = scene.read()
    assert (now["failing"]["tasks"], len(now["errors"])) == (23, 20), "8 is deleted, 9 is new"
    assert {each["project"] for each in now["served"]} == {7, 9}
    assert now["errors"][0]["task"] == 6, "the last one first"
    errors = {error["task"]: error for error in now["errors"]}
    assert 99 not in errors
    assert (errors[6]["project"], errors[6]["sentence"]) == (7, "There is no file.")
    assert errors[6]["url"] == "http://label-studio:8080/projects/7/data?task=6"
    assert now["failing"]["since"] <= errors[6]["since"] < errors[6]["at"]


def test_polls_are_shown() -> None:
    scene = Scene()
    polls = scene.services.change_poller.polls
    polls.add(7, 0)
    polls.add(8, 0)
    poll = polls.lease()
    assert poll is not None
    polls.finish(poll, 60.0)
    assert polls.lease() is not None
    polls.fail(8, f"Label Studio refuses {KEY}.", 60.0)
    good, bad = scene.read()["connection"]["polled"]
    assert (good["project"], good["trouble"], good["at"] > 1e9) == (7, "", True)
    assert (bad["project"], bad["at"]) == (8, None)
    assert "Label Studio refuses" in bad["trouble"]
    assert KEY not in bad["trouble"]


def test_no_secret_is_seen() -> None:
    scene = Scene()
    sentence = f"refused {KEY} at http://a:hunter2@host/"
    FailureStore(scene.store.database).add([(5, sentence)], project=7)
    scene.tracker.refused(sentence)
    with scene.tracker.task(KEY, 7, "batch"):
        text = msgspec.json.encode(scene.status.read()).decode()
    assert text.count("refused") == 2
    assert KEY not in text
    assert "hunter2" not in text


def test_a_database_that_is_gone_hides_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(b"this is no database" * 100)
    now = Scene(Database(f"sqlite:///{path}")).read()
    assert now["jobs"] == []
    assert now["jobs_trouble"] == "The database of jobs cannot be read (file is not a database)."
    assert now["model"]["state"] == "ready"
    now = Scene(Database(f"sqlite:///{tmp_path}")).read()
    assert "(unable to open database file)" in now["jobs_trouble"]
