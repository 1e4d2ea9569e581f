"""Rounds of the worker against a stand-in for Label Studio's API: jobs, late tasks, withdrawals."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from backend.cli.main import main
from backend.database.database import Database
from backend.errors import NotFound, StudioUnreachable, WithdrawalRefused
from backend.feedback.annotation_store import AnnotationStore
from backend.jobs.job_store import Job, JobStore
from backend.jobs.worker import Withdrawer, Worker
from backend.label_studio.client import LabelStudioClient
from backend.learning.learner import Learner
from tests.backend.fakes.colour_segmenter import data_url
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked, LocalServer
from tests.backend.fakes.report import rows_of
from tests.backend.fakes.waiting import wait_for
from tests.backend.feedback.test_annotation_reader import region
from tests.backend.jobs.conftest import CONFIG, Backend, Make, picture, version
from tests.backend.prediction.annotator import CONFIG as WITH_TOOLS
from tests.backend.prediction.annotator import keypoint


def retrieve(backend: Backend, studio: FakeStudio) -> list[int]:
    """Press Retrieve: store the answers for tasks without a prediction; return those tasks."""
    wanted = [task for task in studio.tasks if not studio.stored(version())[task]]
    entries = backend.predict(*wanted)
    answered = [task for task, entry in zip(wanted, entries, strict=True) if entry]
    for task in answered:
        studio.add(task, version())
    return answered


def are_over(backend: Backend) -> bool:
    return all(job.over for job in backend.store.list_jobs())


def test_two_kinds_of_jobs_run_beside_each_other(make_backend: Make, studio: FakeStudio) -> None:
    backend = make_backend()
    backend.segmenter.gate.clear()
    backend.store.start_job(7)
    backend.worker.start()
    wait_for(lambda: backend.store.list_jobs()[0].state == "running")
    assert retrieve(backend, studio) == []
    wait_for(lambda: {job.state for job in backend.store.list_jobs()} == {"running"})
    backend.segmenter.gate.set()
    wait_for(lambda: are_over(backend))
    assert {(job.kind, job.state) for job in backend.store.list_jobs()} == {
        ("project", "done"),
        ("late", "done"),
    }
    assert studio.stored() == dict.fromkeys(studio.tasks, 1)


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
def test_tasks_of_a_job_that_will_not_write_them_are_asked_for_again(
    make_backend: Make, studio: FakeStudio, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.prediction.batches._CHOOSING_S", 600.0)  # on a busy machine too
    backend = make_backend(predict_deadline_s=20)
    backend.store.add_late_tasks(7, [1, 2])
    assert retrieve(backend, studio) == list(range(3, 41))
    (job,) = backend.store.list_jobs()
    if ends == "cancelled":
        backend.store.cancel(job.id)
    else:
        backend.store.lease_job("me", late=True)
        backend.store.finish(job.id, "me", "Label Studio refuses the token.")
    assert retrieve(backend, studio) == [], "some may just have been written"
    later = JobStore(Database(str(backend.store.database.url), lambda: job.created + 3600))
    assert later.late_task_ids(7, 5.0) == set()
    later.database.close()


def test_a_backend_that_ends_gives_its_job_away(make_backend: Make, studio: FakeStudio) -> None:
    ends = make_backend()
    ends.segmenter.gate.clear()
    ends.worker.start()
    job = ends.store.start_job(7)
    assert ends.segmenter.started.acquire(timeout=60)
    ends.worker.stop()
    time.sleep(0.5)  # the job looks every 0.05 s whether the backend stops
    ends.segmenter.gate.set()
    wait_for(lambda: ends.store.get_job(job.id).state == "queued")
    other = make_backend()
    other.worker.start()
    wait_for(lambda: ends.store.get_job(job.id).over)
    assert studio.stored() == dict.fromkeys(range(1, 41), 1)


def test_a_stop_in_the_middle_of_a_long_task_is_no_death() -> None:
    ended, over = list[bool](), threading.Event()
    worker = Worker({"slow": lambda: over.wait(9)}, [], over, lambda: ended.append(True))
    worker.start()
    worker.stop()
    assert ended == [True]


def test_new_tasks_wait_while_the_version_in_use_is_made_again_for_another_model(
    make_backend: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    remade = {7}
    monkeypatch.setattr(Learner, "made_again", lambda self: remade)
    backend = make_backend()
    waits = backend.store.start_job(7, kind="new", tasks=[1])
    asked = backend.store.start_job(7, only="all", limit=1)
    backend.worker.start()
    wait_for(lambda: backend.store.get_job(asked.id).over)
    assert backend.store.get_job(waits.id).state == "queued"
    remade.clear()
    wait_for(lambda: backend.store.get_job(waits.id).over)


def test_a_round_that_crashes_is_told_and_the_next_one_works(
    make_backend: Make,
    studio: FakeStudio,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = make_backend()
    crashes = [ZeroDivisionError("a secret")]
    lease = JobStore.lease_job

    def crash(*arguments: Any, **named: Any) -> Any:
        if crashes:
            raise crashes.pop()
        return lease(*arguments, **named)

    monkeypatch.setattr(JobStore, "lease_job", crash)
    backend.worker.start()
    job = backend.store.start_job(7)
    wait_for(lambda: backend.store.get_job(job.id).over)
    assert "The background has failed" in caplog.text


@pytest.fixture
def connected(make_backend: Make, studio: FakeStudio) -> Backend:
    studio.backends = [{"id": 1, "url": "http://here:9090", "created_at": "2001-09-09T01:46:40Z"}]
    backend = make_backend(
        model="demo", adapt_every=2, auto_prelabel="7", predict_deadline_s=30, poll_interval_s=600
    )
    body = {"project": "7.1", "schema": CONFIG}
    assert backend.client.post("/setup", json=body).status_code == 200
    backend.worker.start()
    return backend


def wake(backend: Backend) -> None:
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 7}}
    assert backend.client.post("/webhook", json=body).status_code == 200


def test_a_webhook_brings_the_next_poll_forward(connected: Backend, studio: FakeStudio) -> None:
    annotations = AnnotationStore(connected.store.database, "who looks")
    studio.annotate(8, [])
    wake(connected)
    wait_for(lambda: [read.task for read in rows_of(annotations)] == [8])
    studio.remove(next(iter(studio.annotations)))
    new = studio.create(studio.tasks[9])
    wake(connected)
    wait_for(lambda: rows_of(annotations) == [] and studio.stored() == {new: 1})


def test_many_annotations_at_once_make_one_version(connected: Backend, studio: FakeStudio) -> None:
    """Thirty, where two would do: no version is made while others are read."""
    for task in range(1, 31):
        noise = np.random.default_rng(task).integers(0, 256, (4, 8, 3), np.uint8)
        studio.tasks[task] = {"image": data_url(noise)}
        studio.annotate(task, [region("a", "red", 4)], 1e9)
    wake(connected)
    learned = "/projects/7/learning"
    wait_for(lambda: bool(connected.client.get(learned).get_json()["versions"]))
    told = connected.client.get(learned).get_json()
    (only,) = told["versions"]
    assert (only["number"], only["annotations"], told["changed"]) == (1, 30, 0)


def test_one_in_ten_gets_none_while_it_is_measured(make_backend: Make, studio: FakeStudio) -> None:
    """Jobs, Retrieve and polls alike; clicks are answered, and at the end all tasks get one."""
    studio.tasks = {i: {"image": picture(i % 40)} for i in range(1, 121)}
    for task in range(1, 21):
        studio.add(task, "an older version")
    studio.backends = [{"id": 1, "url": "http://here:9090", "created_at": "2001-09-09T01:46:40Z"}]
    backend = make_backend(auto_prelabel="all")
    backend.client.post("/setup", json={"project": "7.1", "schema": CONFIG})

    def post(path: str) -> int:
        return int(backend.client.post(f"/projects/7/report/{path}").status_code)

    def counts() -> Any:
        return backend.client.get("/projects/7").get_json()["counts"]

    backend.store.start_job(7)
    assert post("measure") == 400, "that job would predict all"
    backend.store.cancel(1)
    assert post("measure") == 303
    backend.store.start_job(7)
    backend.worker.start()
    wait_for(lambda: are_over(backend))
    left_out = {task for task in studio.tasks if not studio.stored()[task]}
    assert 1 <= len(left_out) <= 30
    assert {*range(1, 21)} < {*studio.stored(version())}, "these have been seen with a prediction"
    assert backend.store.list_jobs()[0].state == "done"
    told = counts()
    assert told["waiting"] == told["withheld"] == len(left_out)
    assert backend.client.get("/projects/7").get_json()["next"] == "correct"
    assert retrieve(backend, studio) == []
    assert studio.stored()[next(iter(left_out))] == 0
    opened = {"id": min(left_out), "project": 7, "data": {"image": picture(1)}}
    click: dict[str, Any] = {"tasks": [opened], "project": "7.1", "label_config": WITH_TOOLS}
    click["params"] = {"context": {"result": [keypoint(10, 50)]}}
    assert backend.client.post("/predict", json=click).get_json()["results"][0]["result"]
    new = [studio.create({"image": picture(1)}) for _ in range(60)]
    backend.client.post("/webhook", json={"action": "TASKS_CREATED", "project": {"id": 7}})
    wait_for(lambda: backend.store.list_jobs()[0].kind == "new" and are_over(backend))
    assert 30 < sum(studio.stored()[each] for each in new) < 60
    assert post("stop") == 303
    assert counts()["withheld"] == 0
    backend.store.start_job(7)
    wait_for(lambda: are_over(backend))
    assert studio.stored(version()) == dict.fromkeys(studio.tasks, 1)


HOUR_S = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(Database(f"sqlite:///{tmp_path}/jobs.db"))


@pytest.fixture
def withdrawer(server: LocalServer, store: JobStore) -> Withdrawer:
    return Withdrawer(store, LabelStudioClient(server.url, TOKEN, retry_for_s=0), "me")


def job_that_is_over(store: JobStore, studio: FakeStudio, *tasks: int) -> Job:
    """A job of version "v2", which has predicted these tasks."""
    job = store.start_job(7, limit=len(tasks))
    assert store.lease_job("me") is not None
    store.advance(job.id, "me", version="v2", total=len(tasks), done=len(tasks))
    for task in tasks:
        studio.add(task, "v2", created=time.time())
    return store.finish(job.id, "me")


def withdrawn(withdrawer: Withdrawer, store: JobStore, job: Job) -> Job:
    return withdrawer.run(leased_withdrawal(store, job), threading.Event())


def leased_withdrawal(store: JobStore, job: Job) -> Job:
    leased = store.lease_job("me", store.start_withdrawal(job.id).id)
    assert leased is not None
    return leased


def test_what_nobody_has_touched_is_deleted_and_the_rest_is_listed(
    withdrawer: Withdrawer, store: JobStore, studio: FakeStudio
) -> None:
    """Other versions, and other runs of the same one, keep theirs."""
    now = time.time()
    studio.add(40, "v2", created=now - HOUR_S)
    job = job_that_is_over(store, studio, *range(1, 40))
    studio.add(2, "v2", created=now)  # as two backends with one version may leave it
    studio.add(4, "v2", created=now + HOUR_S)
    studio.add(4, "v1", created=now)
    studio.annotate(3, [])
    studio.drafted.add(35)
    over = withdrawn(withdrawer, store, job)
    assert (over.state, over.total, over.done, over.skipped) == ("done", 39, 37, 2)
    assert store.task_ids(over.id) == (3, 35)
    assert studio.stored("v2") == {3: 1, 4: 1, 35: 1, 40: 1}
    assert studio.stored("v1") == {4: 1}


def test_one_prediction_that_label_studio_does_not_delete_does_not_hold_the_others(
    withdrawer: Withdrawer, store: JobStore, studio: FakeStudio
) -> None:
    job = job_that_is_over(store, studio, *range(1, 31))
    broken = studio.predictions[4]["id"]

    def fail_at_one(asked: Asked) -> Answer | None:
        is_it = asked.method == "DELETE" and f"/predictions/{broken}/" in asked.path
        return Answer(500) if is_it else None

    studio.fault = fail_at_one
    over = withdrawn(withdrawer, store, job)
    assert (over.state, over.done, over.skipped) == ("failed", 29, 1)
    assert "Task 5 keeps its prediction." in over.reason
    assert studio.stored("v2") == {5: 1}

    studio.fault = lambda _: None
    assert withdrawn(withdrawer, store, job).state == "done"
    assert not studio.predictions


def test_a_withdrawal_that_waits_for_the_last_step_of_a_cancelled_job_withdraws_it(
    withdrawer: Withdrawer, store: JobStore, studio: FakeStudio
) -> None:
    job = store.start_job(7)
    store.lease_job("me", job.id)
    store.advance(job.id, "me", version="v2", total=3, done=1)
    store.cancel(job.id)
    withdrawal = store.start_withdrawal(job.id)
    time.sleep(0.01)  # the clock of the database has gone on
    assert store.lease_job("me", withdrawal.id) is None, "while the job has its lease"
    store.advance(job.id, "me", done=1)
    store.finish(job.id, "me")
    for task in (1, 2):
        studio.add(task, "v2", created=time.time())
    assert withdrawn(withdrawer, store, job).done == 2


def test_a_withdrawal_that_was_interrupted_goes_on(
    withdrawer: Withdrawer, store: JobStore, studio: FakeStudio
) -> None:
    job = job_that_is_over(store, studio, *range(1, 41))
    studio.annotate(2, [])
    deleted = 0

    def fails(asked: object) -> Answer | None:
        nonlocal deleted
        deleted += getattr(asked, "method", "") == "DELETE"
        return Answer(503) if deleted > 30 else None

    studio.fault = fails
    started = leased_withdrawal(store, job)
    with pytest.raises(StudioUnreachable):
        withdrawer.run(started, threading.Event())
    studio.fault = lambda _: None
    store.release(started.id, "me")
    assert store.start_withdrawal(job.id).id == started.id  # the same command goes on
    over = withdrawn(withdrawer, store, job)
    assert (over.id, over.state) == (started.id, "done")
    assert store.task_ids(over.id) == (2,)
    assert studio.stored() == {2: 1}


def test_it_ends_soon_where_it_is_to_stop_or_is_paused(
    withdrawer: Withdrawer, store: JobStore, studio: FakeStudio
) -> None:
    job = job_that_is_over(store, studio, *range(1, 41))
    stopping = threading.Event()
    stopping.set()
    leased = leased_withdrawal(store, job)
    assert not withdrawer.run(leased, stopping).over
    assert sum(studio.stored().values()) == 40
    halfway = withdrawer.run(leased, threading.Event(), lambda _: store.pause(leased.id) and None)
    assert halfway.state == "paused"
    assert sum(studio.stored().values()) == 20


def test_what_cannot_be_withdrawn_is_refused(store: JobStore, studio: FakeStudio) -> None:
    queued = store.start_job(7)
    with pytest.raises(WithdrawalRefused, match="Job 1 has written no predictions"):
        store.start_withdrawal(queued.id)
    store.lease_job("me")
    store.advance(queued.id, "me", version="v2", total=9, done=1)
    with pytest.raises(WithdrawalRefused, match="Job 1 is running: cancel it first"):
        store.start_withdrawal(queued.id)
    store.finish(queued.id, "me")
    withdrawal = store.start_withdrawal(queued.id)
    with pytest.raises(WithdrawalRefused):
        store.start_withdrawal(withdrawal.id)
    with pytest.raises(NotFound):
        store.start_withdrawal(99)


def test_withdrawn_tasks_are_predicted_again(make_backend: Make, studio: FakeStudio) -> None:
    studio.tasks = {i: {"image": picture(i)} for i in range(1, 6)}
    backend = make_backend()
    backend.worker.start()
    job = backend.store.start_job(7)
    wait_for(lambda: backend.store.get_job(job.id).over)
    for each in studio.predictions:  # the stand-in's clock stands at the epoch
        each["created_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    withdrawal = backend.client.post(f"/jobs/{job.id}/withdraw").get_json()
    assert (withdrawal["kind"], withdrawal["withdraws"]) == ("withdrawal", job.id)
    wait_for(lambda: backend.store.get_job(withdrawal["id"]).over)
    assert not studio.predictions
    shown = backend.client.get(f"/jobs/{withdrawal['id']}").get_json()
    assert (shown["done"], shown["kept"]) == (5, [])
    again = backend.store.start_job(7)
    wait_for(lambda: backend.store.get_job(again.id).over)
    assert studio.stored() == dict.fromkeys(range(1, 6), 1)


def test_the_command_does_it_too(server: LocalServer, store: JobStore, studio: FakeStudio) -> None:
    job = job_that_is_over(store, studio, 1, 2, 3)
    studio.annotate(2, [])
    reach = {"LABEL_STUDIO_URL": server.url, "LABEL_STUDIO_API_KEY": TOKEN}
    runner = CliRunner(env=reach | {"DATABASE_URL": str(store.database.url)})
    done = runner.invoke(main, ["withdraw", "--job", str(job.id)])
    assert done.exit_code == 0, done.output
    assert f"Withdrawal of job {job.id}: done." in done.stdout
    assert "2 predictions deleted, those of 1 task kept.\nKept: 2" in done.stdout
    refused = runner.invoke(main, ["withdraw", "--job", "9"])
    assert (refused.exit_code, refused.stderr) == (1, "Error: There is no job 9.\n")
