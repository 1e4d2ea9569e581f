"""The predictions of a job are taken back, except where somebody has worked with them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from backend.cli.main import main
from backend.database.database import Database
from backend.errors import NotFound, StudioUnreachable, WithdrawalRefused
from backend.jobs.job_store import Job, JobStore
from backend.jobs.worker import Withdrawer
from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, LocalServer
from tests.backend.fakes.waiting import wait_for
from tests.backend.jobs.conftest import CONFIG, Backend, picture

HOUR_S = 3600.0


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(CONFIG, {i: {"image": f"{i}.png"} for i in range(1, 51)})


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
    studio.add(50, "v2", created=now - HOUR_S)
    job = job_that_is_over(store, studio, *range(1, 50))
    studio.add(2, "v2", created=now)  # as two backends with one version may leave it
    studio.add(4, "v2", created=now + HOUR_S)
    studio.add(4, "v1", created=now)
    studio.annotate(3, [])
    studio.drafted.add(45)
    over = withdrawn(withdrawer, store, job)
    assert (over.state, over.total, over.done, over.skipped) == ("done", 49, 47, 2)
    assert store.task_ids(over.id) == (3, 45)
    assert studio.stored("v2") == {3: 1, 4: 1, 45: 1, 50: 1}
    assert studio.stored("v1") == {4: 1}


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
    job = job_that_is_over(store, studio, *range(1, 51))
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
    job = job_that_is_over(store, studio, *range(1, 51))
    stopping = threading.Event()
    stopping.set()
    leased = leased_withdrawal(store, job)
    assert not withdrawer.run(leased, stopping).over
    assert sum(studio.stored().values()) == 50
    halfway = withdrawer.run(leased, threading.Event(), lambda _: store.pause(leased.id) and None)
    assert halfway.state == "paused"
    assert sum(studio.stored().values()) == 30


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


def test_a_backend_runs_it_and_the_tasks_can_be_predicted_again(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
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


def test_the_command_tells_and_does_the_same(
    server: LocalServer, store: JobStore, studio: FakeStudio
) -> None:
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
