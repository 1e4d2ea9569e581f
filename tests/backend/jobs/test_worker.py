"""What a backend does beside answering, against a stand-in for Label Studio's API."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from backend import create_app
from backend.cli.server_process import free_port, running
from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.inference.engine import Engine
from backend.jobs import delivery, worker
from backend.jobs import prelabeler as prelabel
from backend.jobs.job_store import JobStore
from backend.jobs.worker import Worker
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.prediction.outbox import PredictionOutbox, result_key
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import (
    ColourSegmenter,
    brush_config,
    colour_engine,
    data_url,
    flag,
)
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.leases import end_leases
from tests.backend.fakes.local_server import Answer, LocalServer
from tests.backend.feedback.test_annotation_reader import region

CONFIG = brush_config("red")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_POLL_S", 0.02)
    monkeypatch.setattr(worker, "_RETRY_AFTER_S", 0.1)
    monkeypatch.setattr(delivery, "_RETRY_AFTER_S", 0.1)
    monkeypatch.setattr(prelabel, "_CLOSING_PAUSE_S", 0.05)
    monkeypatch.setattr(prelabel, "_POLL_S", 0.05)


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(CONFIG, {i: {"image": picture(i)} for i in range(1, 41)})


@pytest.fixture
def server(studio: FakeStudio) -> Iterator[LocalServer]:
    with studio.served() as server:
        yield server


def picture(number: int) -> str:
    return data_url(flag("red", "blue", size_hw=(4, 8 + number)))


@dataclass
class Backend:
    """A backend as `serve` runs it, its parts at hand."""

    client: Any
    worker: Worker
    store: JobStore
    segmenter: ColourSegmenter
    engine: Engine

    def predict(self, *ids: int) -> list[Any]:
        tasks = [{"id": i, "project": 7, "data": {"image": picture(i)}} for i in ids]
        body = {"tasks": tasks, "label_config": CONFIG, "project": "7.1"}
        results: list[Any] = self.client.post("/predict", json=body).get_json()["results"]
        return results


@pytest.fixture
def make_backend(server: LocalServer, tmp_path: Path) -> Iterator[Callable[..., Backend]]:
    made = []

    def make(**more: Any) -> Backend:
        reach = {"label_studio_url": server.url, "label_studio_api_key": TOKEN}
        url = f"sqlite:///{tmp_path}/shared.db"
        settings = Settings(**(reach | {"database_url": url, "predict_deadline_s": 0.5} | more))
        segmenter = ColourSegmenter()
        engine = colour_engine(segmenter)
        app = create_app(settings, engine)
        backend = Backend(
            app.test_client(), app.extensions["worker"], JobStore(Database(url)), segmenter, engine
        )
        made.append(backend)
        return backend

    yield make
    for backend in made:
        backend.segmenter.gate.set()
        backend.worker.stop()
        backend.engine.stop()


def wait_for(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def version() -> str:
    predictor = Predictor(colour_engine(), lambda *_: flag("red"), Settings())
    return predictor.versions.current(parse_label_config(CONFIG))


def test_what_is_late_for_the_answer_is_written_once(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
    backend = make_backend()
    backend.segmenter.gate.clear()
    assert backend.predict(1, 2, 3) == [[], [], []]
    backend.segmenter.gate.set()
    backend.worker.start()
    wait_for(lambda: len(studio.stored()) == 3)
    time.sleep(0.3)
    assert studio.stored() == {1: 1, 2: 1, 3: 1}
    assert sum(map(len, backend.segmenter.encoded)) == 3


def test_what_was_answered_is_not_written_too(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
    backend = make_backend(predict_deadline_s=30)
    backend.worker.start()
    assert all(backend.predict(1, 2, 3))
    time.sleep(0.3)
    assert studio.stored() == {}


def test_a_second_press_takes_what_is_there(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
    """Without a worker, as where there is no token: only the answer can bring it."""
    backend = make_backend()
    backend.segmenter.gate.clear()
    assert backend.predict(1, 2) == [[], []]
    backend.segmenter.gate.set()
    wait_for(lambda: backend.client.get("/status").get_json()["remaining"] == 0)
    assert all(backend.predict(1, 2))
    assert sum(map(len, backend.segmenter.encoded)) == 2


def test_an_opened_task_that_takes_too_long_is_kept(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
    backend = make_backend()
    backend.segmenter.gate.clear()
    assert backend.predict(1) == [[]]
    backend.segmenter.gate.set()
    wait_for(lambda: backend.client.get("/status").get_json()["remaining"] == 0)
    assert all(backend.predict(1))
    assert sum(map(len, backend.segmenter.encoded)) == 1


def test_a_prediction_that_is_newer_is_left_alone(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
    backend = make_backend()
    keep(backend, 1, 2, 3)
    studio.add(1, "another", created=time.time() + 60)
    studio.add(2, version(), created=time.time() - 60)
    studio.add(3, "an older one", created=time.time() - 60)
    backend.worker.start()
    wait_for(lambda: studio.stored(version()) == {2: 1, 3: 1})
    wait_for(lambda: PredictionOutbox(backend.store.database, "").count_waiting() == {})
    assert studio.stored(version()) == {2: 1, 3: 1}


def test_a_label_config_that_has_changed_makes_results_worthless(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
    backend = make_backend()
    keep(backend, 1)
    studio.label_config = brush_config("blue")
    backend.worker.start()
    wait_for(lambda: PredictionOutbox(backend.store.database, "").count_waiting() == {})
    assert studio.stored() == {}


def test_a_label_studio_that_is_away_gets_them_later(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
    left = [Answer(503)] * 2
    studio.fault = lambda _: left.pop() if left else None
    backend = make_backend()
    keep(backend, 1)
    backend.worker.start()
    wait_for(lambda: studio.stored() == {1: 1})


@pytest.mark.parametrize("status", [302, 401, 403])
def test_a_token_or_an_address_that_is_not_taken_costs_no_predictions(
    make_backend: Callable[..., Backend], studio: FakeStudio, status: int
) -> None:
    left = [Answer(status, headers={"Location": "/login"})] * 2
    studio.fault = lambda _: left.pop() if left else None
    backend = make_backend()
    keep(backend, 1)
    backend.worker.start()
    wait_for(lambda: studio.stored() == {1: 1})


def test_a_project_that_is_refused_holds_up_no_other(
    make_backend: Callable[..., Backend], studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_RETRY_AFTER_S", 60.0)
    monkeypatch.setattr(delivery, "_RETRY_AFTER_S", 60.0)
    monkeypatch.setattr(delivery, "_BATCH_SIZE", 1)
    studio.fault = lambda asked: Answer(403) if "/projects/8" in asked.path else None
    backend = make_backend()
    keep(backend, 101, 102, 103, project=8)
    keep(backend, 1)
    backend.worker.start()
    wait_for(lambda: studio.stored() == {1: 1})


def test_a_job_is_run_in_the_background(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
    backend = make_backend()
    backend.worker.start()
    job = backend.store.start_job(7)
    wait_for(lambda: backend.store.get_job(job.id).over)
    assert backend.store.get_job(job.id).done == 40
    assert studio.stored() == dict.fromkeys(range(1, 41), 1)


def test_a_backend_that_ends_gives_its_job_to_another(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
    ends = make_backend()
    ends.segmenter.gate.clear()
    ends.worker.start()
    job = ends.store.start_job(7)
    assert ends.segmenter.started.acquire(timeout=20)
    threading.Timer(0.1, ends.segmenter.gate.set).start()
    ends.worker.stop()
    wait_for(lambda: ends.store.get_job(job.id).state == "queued")
    other = make_backend()
    other.worker.start()
    wait_for(lambda: ends.store.get_job(job.id).over)
    assert studio.stored() == dict.fromkeys(range(1, 41), 1)


def test_tasks_of_a_backend_that_died_are_queued(
    make_backend: Callable[..., Backend], studio: FakeStudio, tmp_path: Path
) -> None:
    backend = make_backend()
    past = JobStore(Database(f"sqlite:///{tmp_path}/shared.db", lambda: time.time() - 3600))
    tasks = [Task(i, 7, {"image": picture(i)}) for i in (5, 6)]
    PredictionOutbox(past.database, "died").claim(
        {result_key(t, version()): t for t in tasks}, 7, version()
    )
    backend.worker.start()
    wait_for(lambda: studio.stored() == {5: 1, 6: 1})
    (job,) = backend.store.list_jobs()
    assert (job.kind, job.tasks) == ("new", (5, 6))


def test_tasks_of_a_backend_that_died_outlive_an_outage_of_the_database(
    make_backend: Callable[..., Backend],
    studio: FakeStudio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = make_backend()
    faults, start = [OperationalError("INSERT", {}, Exception("it shuts down"))], JobStore.start_job

    def start_job(*arguments: Any, **more: Any) -> Any:
        if faults:
            raise faults.pop()
        return start(*arguments, **more)

    past = JobStore(Database(f"sqlite:///{tmp_path}/shared.db", lambda: time.time() - 3600))
    task = Task(5, 7, {"image": picture(5)})
    PredictionOutbox(past.database, "died").claim({result_key(task, version()): task}, 7, version())
    monkeypatch.setattr(JobStore, "start_job", start_job)
    backend.worker.start()
    wait_for(lambda: studio.stored() == {5: 1})


def test_new_tasks_of_the_webhook_are_predicted(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
    backend = make_backend(auto_prelabel="7")
    backend.worker.start()
    body = {"action": "TASKS_CREATED", "project": {"id": 7}, "tasks": [{"id": 8}, {"id": 9}]}
    assert backend.client.post("/webhook", json=body).get_json()["status"] == "queued"
    wait_for(lambda: studio.stored() == {8: 1, 9: 1})


def test_a_round_that_crashes_is_told_and_the_next_one_works(
    make_backend: Callable[..., Backend],
    studio: FakeStudio,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = make_backend()
    crashes = [ZeroDivisionError("a secret")]
    lease = JobStore.lease_job

    def crash(*arguments: Any) -> Any:
        if crashes:
            raise crashes.pop()
        return lease(*arguments)

    monkeypatch.setattr(JobStore, "lease_job", crash)
    backend.worker.start()
    job = backend.store.start_job(7)
    wait_for(lambda: backend.store.get_job(job.id).over)
    assert "The background has failed" in caplog.text


def keep(backend: Backend, *ids: int, project: int = 7) -> None:
    """Results that were made after a deadline, by a backend that is no more."""
    results = PredictionOutbox(backend.store.database, "made")
    for i in ids:
        task = Task(i, project, {"image": picture(i)})
        key = result_key(task, version())
        results.claim({key: task}, project, version())
        prediction = {"model_version": version(), "score": 0.5, "result": []}
        results.add(key, prediction, 0.0)


def test_two_processes_share_a_postgresql_and_one_is_killed(
    postgres_url: Callable[[str], str], server: LocalServer, studio: FakeStudio, tmp_path: Path
) -> None:
    studio.tasks |= {i: {"image": picture(i)} for i in range(41, 101)}
    url = postgres_url(f"shared-{tmp_path.name}"[:60])
    store = JobStore(Database(url))
    command = [sys.executable, "-m", "tests.e2e.slow_segmenter", "0.1", "serve", "--port"]
    reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
    small = ["--model", "demo", "--short-side-px", "64", "--database-url", url]
    with ExitStack() as stack:
        processes = []
        for number in range(2):
            port = free_port(0)
            running_ = running(
                [*command, str(port), *reach, *small],
                variables={"OMP_WAIT_POLICY": "PASSIVE"},
                health=f"http://127.0.0.1:{port}/health",
                log=tmp_path / f"log-{number}",
                timeout_s=120,
            )
            processes.append(stack.enter_context(running_))
        job = store.start_job(7)
        wait_for(lambda: store.get_job(job.id).done > 0, within_s=120)
        owner = store.get_job(job.id).owner
        group = os.getpgid(int(owner.split(":")[1]))  # gunicorn's worker is a child of its master
        assert group in [process.pid for process in processes]
        os.killpg(group, signal.SIGKILL)
        end_leases(store.database, owner)
        wait_for(lambda: store.get_job(job.id).over, within_s=120)
    over = store.get_job(job.id)
    assert over.owner != owner
    assert (over.state, over.done, over.failed) == ("done", 100, 0)
    assert studio.stored() == dict.fromkeys(range(1, 101), 1)
    store.database.close()


def test_an_annotation_of_the_webhook_is_read(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
    backend = make_backend()
    made = studio.annotate(8, [])
    backend.worker.start()
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 7}, "annotation": {"id": made["id"]}}
    assert backend.client.post("/webhook", json=body).get_json() == {"status": "noted"}
    annotations = AnnotationStore(backend.store.database, "who looks")
    wait_for(lambda: [read.task for read in annotations.read(7)] == [8])
    studio.annotations.clear()
    body = {"action": "ANNOTATIONS_DELETED", "project": {"id": 7}, "annotations": [made]}
    assert backend.client.post("/webhook", json=body).get_json() == {"status": "noted"}
    wait_for(lambda: annotations.read(7) == [])


@pytest.mark.parametrize("is_told", [True, False])
def test_annotations_teach_and_predictions_follow(
    make_backend: Callable[..., Backend], studio: FakeStudio, is_told: bool
) -> None:
    """From the webhook to the next prediction; and back, once they are deleted, told of or not."""
    backend = make_backend(model="demo", adapt_every=2, predict_deadline_s=30)
    before = backend.predict(1)

    def tell(action: str, **told: Any) -> None:
        message = {"action": action, "project": {"id": 7}, **told}
        backend.client.post("/webhook", json=message)

    def version() -> str:
        body = {"project": "7.1", "schema": CONFIG}
        return str(backend.client.post("/setup", json=body).get_json()["model_version"])

    backend.worker.start()
    made = []
    for task in (1, 2):
        noise = np.random.default_rng(task).integers(0, 256, (4, 8, 3), np.uint8)
        studio.tasks[task] = {"image": data_url(noise)}
        result = [region("a", "red", 4)]
        made.append(studio.annotate(task, result, 1e9))
        tell("ANNOTATION_CREATED", annotation={"id": made[-1]["id"]})
    learned = "/projects/7/learning"
    wait_for(lambda: bool(backend.client.get(learned).get_json()["versions"]))
    (newest,) = backend.client.get(learned).get_json()["versions"]
    assert newest["annotations"] == 2
    assert (version() != before[0]["model_version"]) == newest["better"]
    for annotation in made:
        del studio.annotations[annotation["id"]]
    if is_told:
        tell("ANNOTATIONS_DELETED", annotations=[{"id": each["id"]} for each in made])
    else:
        assert backend.client.post(f"{learned}/step").status_code == 200
    wait_for(lambda: backend.client.get(learned).get_json()["annotations"] == 0)
    assert version() == before[0]["model_version"]
    assert backend.predict(1) == before
