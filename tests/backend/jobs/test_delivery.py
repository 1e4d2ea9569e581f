"""Late predictions, delivered to a stand-in for Label Studio's API."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from backend.database.database import Database
from backend.jobs import delivery, worker
from backend.jobs.job_store import JobStore
from backend.label_studio.prediction_list import UNLISTED
from backend.label_studio.requests import Task
from backend.prediction.failures import FailureStore
from backend.prediction.outbox import PredictionOutbox, result_key
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.fakes.local_server import Answer
from tests.backend.jobs.served_backend import (
    Backend,
    keep,
    picture,
    version,
    wait_for,
)


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


def test_a_task_whose_predictions_cannot_be_listed_costs_no_other_its_own(
    make_backend: Callable[..., Backend],
    studio: FakeStudio,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("backend.label_studio.answers._MAX_BYTES_OF_PREDICTIONS", 4000)
    backend = make_backend()
    keep(backend, 1, 2)
    studio.add(1, "hostile", created=time.time() - 60, result=[{}] * 4000)
    backend.worker.start()
    wait_for(lambda: PredictionOutbox(backend.store.database, "").count_waiting() == {})
    assert studio.stored(version()) == {2: 1}
    (failing,) = FailureStore(backend.store.database).failing(9)
    assert (failing.task, failing.reason) == (1, UNLISTED)
    assert f"Task 1: {UNLISTED}" in caplog.text


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


@pytest.mark.parametrize(
    "foreign",
    [Answer(200, b"{}"), Answer(200, b"<h1>Maintenance</h1>"), Answer(404, b"<h1>404</h1>")],
    ids=["object", "page", "not-found-page"],
)
def test_what_answers_in_label_studios_place_costs_no_predictions_and_no_job(
    make_backend: Callable[..., Backend], studio: FakeStudio, foreign: Answer
) -> None:
    left = [foreign]
    studio.fault = lambda _: left.pop() if left else None
    backend = make_backend()
    keep(backend, 1)
    backend.worker.start()
    wait_for(lambda: studio.stored() == {1: 1})
    left.append(foreign)
    job = backend.store.start_job(7)
    wait_for(lambda: backend.store.get_job(job.id).over)
    assert backend.store.get_job(job.id).state == "done"
    assert studio.stored() == dict.fromkeys(range(1, 41), 1)


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
    assert (job.kind, backend.store.task_ids(job.id)) == ("new", (5, 6))


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
