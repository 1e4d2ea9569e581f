"""Deaths of owners and times that no clock gives, the same way for all that is leased."""

from typing import Any

import pytest
import sqlalchemy as sa

from backend.database.database import METADATA, Database
from backend.database.leases import (
    ENDED,
    FINISHED,
    LEASE_S,
    NO_TASK,
    RELEASED,
    Deaths,
    LeaseLost,
    Leases,
    end_all,
    is_due,
    is_hopeless,
)
from backend.errors import TaskDeadly
from backend.feedback.annotation_store import AnnotationStore
from backend.jobs.change_poller import PollStore
from backend.jobs.job_store import JobStore
from backend.jobs.set_up import SetUps
from backend.learning.versions import VersionStore
from backend.review.verdicts import Reviewed, ReviewStore
from backend.runs.run_store import AskedNothing, RunStore
from backend.runs.runner import KINDS
from backend.settings import Settings
from tests.backend.conftest import Clock

_POLLS = METADATA.tables["polls"]


@pytest.fixture(autouse=True)
def _years_after_the_epoch(clock: Clock) -> None:
    clock.now = 1e9


class Backend:
    """An owner of leases of a table."""

    def __init__(self, database: Database, owner: str) -> None:
        self.leases = Leases(database, _POLLS, owner)
        self.deaths: Deaths = {}

    def take(self) -> bool:
        """Lease all that is free; keep the deaths that it was told of."""

        def keep(_row: Any, deaths: Deaths) -> dict[str, Any]:
            self.deaths = deaths
            return {}

        return bool(self.leases.take(sa.select(_POLLS), keep))


@pytest.fixture
def one(database: Database) -> Backend:
    PollStore(database, "").add(7, 0.0)
    made = Backend(database, "one")
    assert made.take()
    return made


@pytest.fixture
def other(database: Database) -> Backend:
    return Backend(database, "other")


def test_a_death_counts_at_the_task_that_its_owner_was_at(
    one: Backend, other: Backend, clock: Clock
) -> None:
    one.leases.begin(5, 7)
    one.leases.begin(6, 7)
    clock.now += LEASE_S + 1
    assert other.take()
    assert other.deaths == {6: 1}


def test_a_death_at_no_task_counts_too(one: Backend, other: Backend, clock: Clock) -> None:
    one.leases.begin(5, 7)
    one.leases.begin(NO_TASK, 7)
    clock.now += LEASE_S + 1
    assert other.take()
    assert other.deaths == {NO_TASK: 1}


def test_the_third_death_leaves_a_task_out_and_no_other(database: Database, clock: Clock) -> None:
    PollStore(database, "").add(7, 0.0)
    for number in range(3):
        owner = Backend(database, f"dies-{number}")
        assert owner.take()
        owner.leases.begin(6, 7)
        clock.now += LEASE_S + 1
    last = Backend(database, "lives")
    assert last.take()
    with pytest.raises(TaskDeadly, match="ended 3 times while it worked on task 6"):
        last.leases.begin(6, 7)
    last.leases.begin(8, 7)


def test_a_death_is_not_counted_again_at_the_task_of_an_earlier_owner(
    one: Backend, other: Backend, clock: Clock
) -> None:
    one.leases.begin(6, 7)
    clock.now += LEASE_S + 1
    assert other.take()
    clock.now += LEASE_S + 1
    assert one.take()
    assert one.deaths == {6: 1, NO_TASK: 1}


@pytest.mark.parametrize("values", [ENDED, RELEASED, FINISHED], ids=["ended", "released", "done"])
def test_a_lease_that_was_given_back_is_no_death(
    one: Backend, other: Backend, database: Database, values: dict[str, Any]
) -> None:
    one.leases.begin(6, 7)
    with database.write() as connection:
        one.leases.change(connection, 7, **values)
    assert other.take()
    assert other.deaths == {}


def test_an_owner_that_takes_its_own_lease_again_has_not_died(one: Backend, clock: Clock) -> None:
    one.leases.begin(6, 7)
    clock.now += LEASE_S + 1
    assert one.take()
    assert one.deaths == {}


def test_a_lease_of_before_the_clock_was_set_back_is_no_death(
    one: Backend, other: Backend, clock: Clock
) -> None:
    one.leases.begin(6, 7)
    clock.now -= 3600.0
    assert other.take()
    assert other.deaths == {}


def test_work_that_is_done_forgets_deaths(one: Backend, other: Backend, clock: Clock) -> None:
    clock.now += LEASE_S + 1
    assert other.take()
    with other.leases._database.write() as connection:
        other.leases.change(connection, 7, **FINISHED)
    assert one.take()
    assert one.deaths == {}


def test_a_row_fails_for_deaths_at_no_task_or_at_many() -> None:
    assert not is_hopeless({NO_TASK: 2, 5: 3, 6: 3})
    assert is_hopeless({NO_TASK: 3})
    assert is_hopeless({5: 3, 6: 3, 7: 3})


def lease_everything(database: Database, owner: str) -> set[str]:
    """Have something of each kind leased by an owner; return the tables."""
    runs, jobs = RunStore(database, owner), JobStore(database)
    kind, versions = KINDS[0], VersionStore(database, owner, lambda: "m")
    JobStore(database).start_job(7)
    RunStore(database).request(kind, 7, AskedNothing())
    PollStore(database, owner).add(7, 0.0)
    AnnotationStore(database, owner).mark(7, [3])
    versions.request_step(7, unlabelled=True)
    reviews = ReviewStore(database, owner)
    reviews.save(7, 1, owner, [Reviewed(3, 30, "good")], since=0.0)  # the first one's stays

    assert JobStore(database).lease_job(owner)
    assert RunStore(database, owner).lease([kind.name])
    assert PollStore(database, owner).lease()
    assert AnnotationStore(database, owner).lease(1)
    assert versions.lease_step(1)
    assert reviews.lease_due()
    assert SetUps(Settings(), database, owner, runs, jobs).lease(7)
    return {"jobs", "runs", "polls", "annotations", "learning_states", "reviews", "set_ups"}


def test_a_backend_that_stops_in_order_dies_at_nothing(database: Database, clock: Clock) -> None:
    tables = lease_everything(database, "one")
    assert tables == {name for name, table in METADATA.tables.items() if "deaths" in table.c}
    end_all(database, "one")
    lease_everything(database, "other")
    for name in tables:
        assert database.scalar(sa.select(METADATA.tables[name].c.deaths)) == "{}", name


def test_each_kind_of_work_counts_deaths(database: Database, clock: Clock) -> None:
    tables = lease_everything(database, "one")
    clock.now += LEASE_S + 1
    lease_everything(database, "other")
    for name in tables:
        assert database.scalar(sa.select(METADATA.tables[name].c.deaths)) == '{"0":1}', name


def test_a_job_that_is_taken_from_a_dead_command_counts_its_death(database: Database) -> None:
    store = JobStore(database)
    job = store.start_job(7)
    assert store.lease_job("command")
    store.advance(job.id, "command", at_work=[5])
    store.expire(job.id, "command")
    assert store.lease_job("other")
    assert store.tasks(job).deaths == {5: 1}


def test_a_lost_lease_is_said_in_a_sentence(database: Database) -> None:
    store = JobStore(database)
    job = store.start_job(7)
    assert store.lease_job("one")
    with pytest.raises(LeaseLost, match="worked on by one"):
        store.release(job.id, "other")


# ---- clocks --------------------------------------------------------------------------------------


def test_what_is_due_in_an_hour_is_not_due_before_it() -> None:
    assert not is_due(1000.0 + 3600, 1000.0, 3600.0)


def test_polls_go_on_after_the_clock_was_set_back(database: Database, clock: Clock) -> None:
    polls, interval_s = PollStore(database, "one"), Settings().poll_interval_s
    polls.add(7, 0.0)
    poll = polls.lease(interval_s)
    assert poll is not None
    polls.finish(poll, interval_s)
    assert polls.lease(interval_s) is None
    clock.now -= 3600.0
    assert polls.lease(interval_s) is not None


def test_annotations_are_read_after_the_clock_was_set_back(
    database: Database, clock: Clock
) -> None:
    annotations = AnnotationStore(database, "one")
    annotations.mark(7, [3])
    (pending,) = annotations.lease(1)
    annotations.release([pending], failed=pending)
    assert not annotations.has_due()
    clock.now -= 3600.0
    assert annotations.has_due()
    assert len(annotations.lease(1)) == 1


def test_a_step_of_learning_comes_after_the_clock_was_set_back(
    database: Database, clock: Clock
) -> None:
    versions = VersionStore(database, "one", lambda: "m")
    versions.request_step(7, unlabelled=True)
    lease = versions.lease_step(1)
    assert lease is not None
    versions.release(lease, "Label Studio is away.")
    assert versions.lease_step(1) is None
    clock.now -= 3600.0
    assert versions.lease_step(1) is not None


def test_late_tasks_are_asked_for_after_the_clock_was_set_back(
    database: Database, clock: Clock
) -> None:
    store = JobStore(database)
    store.add_late_tasks(7, [3])
    job = store.lease_job("one", late=True)
    assert job is not None
    store.finish(job.id, "one")
    assert store.late_task_ids(7, 5.0) == {3}
    clock.now -= 3600.0
    assert store.late_task_ids(7, 5.0) == set()
