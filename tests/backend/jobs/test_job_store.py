"""Jobs, on SQLite and on a real PostgreSQL."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.database.database import Database
from backend.database.leases import LEASE_S, LeaseLost
from backend.errors import JobOver, NotFound
from backend.jobs.job_store import Job, JobStore
from backend.projects.failures import FailureStore
from tests.backend.conftest import Clock


def lease(store: JobStore, owner: str, job: int | None = None) -> Job:
    leased = store.lease_job(owner, job)
    assert leased is not None
    return leased


def test_a_job_from_its_start_to_its_end(store: JobStore, clock: Clock) -> None:
    job = store.start_job(7, only="all", limit=10)
    assert (job.state, job.project, job.only, job.limit) == ("queued", 7, "all", 10)
    assert (job.total, store.task_ids(job.id)) == (None, None)
    leased = lease(store, "me")
    assert (leased.id, leased.state, leased.owner) == (job.id, "running", "me")
    store.advance(job.id, "me", version="v1", total=10)
    clock.now += 4
    step = store.advance(job.id, "me", cursor=55, done=8, skipped=1, failures=[(50, "No image.")])
    assert (step.done, step.skipped, step.failed, step.remaining) == (8, 1, 1, 0)
    assert (step.version, step.cursor, step.rate, step.eta_s) == ("v1", 55, 2.0, 0.0)
    clock.now += 1
    over = store.finish(job.id, "me")
    assert (over.state, over.started, over.finished, over.over) == ("done", 1000, 1005, True)
    (failure,) = FailureStore(store.database).of_job(job.id)
    assert (failure.task, failure.reason, failure.at) == (50, "No image.", 1004)
    assert store.lease_job("other") is None


def test_the_rate_leaves_pauses_out(store: JobStore, clock: Clock) -> None:
    job = store.start_job(7)
    store.lease_job("me")
    store.advance(job.id, "me", total=100)
    clock.now += 10
    assert store.advance(job.id, "me", done=20).eta_s == 40
    store.pause(job.id)
    store.release(job.id, "me")
    clock.now += 10_000
    store.resume(job.id)
    store.lease_job("me")
    clock.now += 10
    step = store.advance(job.id, "me", done=20)
    assert (step.rate, step.eta_s) == (2, 30)
    clock.now += 10_000  # its owner has died
    store.lease_job("other")
    clock.now += 10
    step = store.advance(job.id, "other", done=20)
    assert (step.rate, step.eta_s) == (2, 20)
    clock.now += 10_000  # the machine has slept
    step = store.advance(job.id, "other")
    assert (step.rate, step.eta_s) == (60 / (30 + LEASE_S), 40)
    clock.now -= 3600  # it is set back
    assert store.advance(job.id, "other").rate == step.rate


def test_a_failed_job_takes_no_lease_by_a_late_step_and_can_go_on(store: JobStore) -> None:
    """A job's lease is kept up beside the work, which may end between two looks."""
    store.start_job(7)
    store.lease_job("me")
    assert store.finish(1, "me", "It cannot go on.").state == "failed"
    assert store.advance(1, "me", done=2).done == 2
    assert store.leased_job(7) is None
    assert store.resume(1).finished is None
    again = lease(store, "you")
    assert (again.id, again.reason) == (1, "")


def test_nobody_gets_a_leased_job_until_the_lease_ends(store: JobStore, clock: Clock) -> None:
    job = store.start_job(7)
    store.lease_job("dies")
    assert store.lease_job("other") is None
    clock.now += LEASE_S / 2
    store.advance(job.id, "dies", cursor=9)
    clock.now += LEASE_S - 1
    assert store.lease_job("other") is None
    clock.now += 2
    taken = lease(store, "other")
    assert (taken.owner, taken.cursor) == ("other", 9)
    for step in (store.advance, store.finish, store.release):
        with pytest.raises(LeaseLost):
            step(job.id, "dies")
    assert store.get_job(job.id) == taken
    clock.now -= 3600  # it is set back
    assert lease(store, "third").owner == "third"
    assert store.lease_job("fourth") is None


def test_one_job_of_a_project_at_a_time_the_oldest_first(store: JobStore) -> None:
    first, second = store.start_job(7), store.start_job(7, only="all")
    third = store.start_job(8)
    owners = {name: store.lease_job(name) for name in "abc"}
    assert [job.id if job else None for job in owners.values()] == [first.id, third.id, None]
    store.finish(first.id, "a")
    assert lease(store, "c").id == second.id


def test_equal_jobs_are_one(store: JobStore, clock: Clock) -> None:
    job = store.start_job(7)
    assert store.start_job(7).id == job.id
    store.lease_job("me")
    assert store.start_job(7).id == job.id
    for other in ({"only": "all"}, {"view": 1}, {"limit": 5}):
        assert store.start_job(7, **other).id != job.id  # type: ignore[arg-type]
    store.pause(job.id)
    assert store.start_job(7).state == "queued"
    store.cancel(job.id)
    assert store.start_job(7).id != job.id


def test_new_tasks_gather_in_one_job_until_it_begins(store: JobStore) -> None:
    job = store.start_job(7, kind="new", tasks=[3, 4])
    assert store.start_job(7, kind="new", tasks=[4, 5]).id == job.id
    assert store.task_ids(job.id) == (3, 4, 5)
    store.lease_job("me")
    later = store.start_job(7, kind="new", tasks=[6])
    assert later.id != job.id
    assert store.task_ids(later.id) == (6,)


def test_who_works_on_it_sees_that_it_is_to_rest(store: JobStore) -> None:
    job = store.start_job(7)
    store.lease_job("me")
    store.pause(job.id)
    store.resume(job.id)
    assert store.lease_job("other") is None, "it was resumed before its owner noticed"
    assert store.advance(job.id, "me").state == "running"
    store.pause(job.id)
    assert store.advance(job.id, "me", done=1).state == "paused"
    assert store.release(job.id, "me").state == "paused"
    assert store.lease_job("other") is None
    store.resume(job.id)
    assert lease(store, "other").done == 1
    assert store.release(job.id, "other").state == "queued"
    assert store.lease_job("me", job.id) is not None, "at once"


def test_a_cancelled_job_stays_cancelled(store: JobStore) -> None:
    job = store.start_job(7)
    store.lease_job("me")
    store.cancel(job.id)
    assert store.finish(job.id, "me").state == "cancelled"
    for turn in (store.pause, store.resume):
        with pytest.raises(JobOver, match="is cancelled"):
            turn(job.id)
    with pytest.raises(NotFound):
        store.cancel(job.id + 1)


def test_threads_that_race_get_each_job_once_and_lose_no_step(url: str) -> None:
    stores = [JobStore(Database(url)) for _ in range(4)]
    shared = stores[0].start_job(99)
    stores[0].lease_job("shared")
    barrier = threading.Barrier(4)
    got: list[int] = []

    def race(number: int) -> None:
        barrier.wait(60)
        for project in range(10):  # each is asked for four times
            stores[number].start_job(project)
        while (job := stores[number].lease_job(str(number))) is not None:
            stores[number].advance(shared.id, "shared", done=1)
            got.append(job.id)
            stores[number].finish(job.id, str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(race, range(4)))
    assert len(got) == len(set(got))
    assert stores[0].finish(shared.id, "shared").done == len(got)
    jobs = [job for job in stores[0].list_jobs() if job.id != shared.id]
    assert sorted(got) == sorted(job.id for job in jobs)
    assert all(job.state == "done" for job in jobs)
    for store in stores:
        store.database.close()
