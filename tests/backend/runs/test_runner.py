"""What all kinds of runs have in common, from asking for one to reading its report."""

import threading
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from backend.database.database import Database
from backend.database.leases import LEASE_S
from backend.errors import ImageInvalid, ModelUnavailable, NotFound, TaskDeadly
from backend.label_studio.requests import Task
from backend.runs import runner as runner_module
from backend.runs.run_store import MOST_KEPT, Run, RunKind, RunStore
from backend.runs.runner import KINDS, Runner
from tests.backend.conftest import Clock
from tests.backend.runs.samples import SAMPLES, run_parts

Kind = RunKind[Any, Any]

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
KIND = KINDS[0]
ASKED, REPORT = SAMPLES[KIND.name]


@dataclass
class Bench:
    """A backend on a database, whose runs do what a test says."""

    store: RunStore

    def run_next(
        self, kind: Kind, make: Any, stopping: threading.Event | None = None, parts: Any = None
    ) -> bool:
        parts = parts or run_parts()
        kinds, stopping = [replace(kind, make=make)], stopping or threading.Event()
        return Runner(kinds, self.store, parts, stopping).run_next()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_NOTE_EVERY_S", 0.0)


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(RunStore(database, "one"))


def other_of(bench: Bench, database: Database) -> Bench:
    return Bench(RunStore(Database(database.url.render_as_string(False), database.clock), "b"))


def fail(error: Exception) -> Any:
    def make(*_: Any) -> None:
        raise error

    return make


@each_kind
def test_a_report_is_kept_for_every_backend(bench: Bench, database: Database, kind: Kind) -> None:
    asked, report = SAMPLES[kind.name]
    run = bench.store.request(kind, 7, asked)
    assert (run.state, run.is_over, kind.read_asked(run)) == ("queued", False, asked)
    other = other_of(bench, database)
    assert other.store.request(kind, 7, asked).id == run.id, "an equal one is open"
    assert other.store.request(kind, 8, asked).id != run.id
    seen: list[Run] = []

    def make(_parts: Any, made: Run, what: Any, progress: Any) -> Any:
        assert (made.id, what) == (run.id, asked)
        progress(2, 3)
        seen.append(bench.store.get(kind, 7, run.id))
        assert not bench.run_next(kind, fail(AssertionError())) or made.project == 7
        return report

    assert other.run_next(kind, make)
    assert (seen[0].state, seen[0].done, seen[0].total) == ("running", 2, 3)
    made = bench.store.last(kind, 7)
    assert made is not None
    assert (made[0].id, made[0].state, made[1]) == (run.id, "done", report)
    assert bench.store.report(kind, made[0]) == report
    assert bench.store.request(kind, 7, asked).state == "queued", "the project may have changed"
    assert all(bench.store.last(each, 7) is None for each in KINDS if each is not kind)


def test_a_run_goes_on_without_the_task_that_ends_the_backend(bench: Bench, clock: Clock) -> None:
    run = bench.store.request(KIND, 7, ASKED)
    for number in range(3):
        dead = RunStore(bench.store.database, f"dies-{number}")
        assert dead.lease([KIND.name]) is not None
        dead.leases.begin(6, run.id)
        clock.now += LEASE_S + 1
    left_out: list[str] = []

    def make(parts: Any, *_: Any) -> Any:
        for task in (5, 6, 8):
            try:
                parts.images.read("data:,", Task(task, 7, {}))
            except TaskDeadly as error:
                left_out.append(str(error))
            except ImageInvalid:
                pass
        return REPORT

    assert bench.run_next(KIND, make)
    assert bench.store.get(KIND, 7, run.id).state == "done"
    assert ["on task 6" in each for each in left_out] == [True]


def test_a_backend_that_stops_leaves_the_run_to_another_one(bench: Bench) -> None:
    stopping = threading.Event()

    def make(*given: Any) -> Any:
        stopping.set()
        given[3](1, 2)
        return REPORT

    run = bench.store.request(KIND, 7, ASKED)
    for _ in range(5):
        stopping.clear()
        assert bench.run_next(KIND, make, stopping)
        assert bench.store.get(KIND, 7, run.id).state == "queued"
    assert bench.run_next(KIND, lambda *_: REPORT)
    assert bench.store.get(KIND, 7, run.id).state == "done"


def test_a_run_that_is_cancelled_ends_at_its_next_step(bench: Bench) -> None:
    steps: list[int] = []

    def make(_parts: Any, run: Run, _asked: Any, progress: Any) -> Any:
        for step in range(9):
            progress(step, 9)
            steps.append(step)
            if step == 2:
                bench.store.cancel(run)
        return REPORT

    run = bench.store.request(KIND, 7, ASKED)
    assert bench.run_next(KIND, make)
    assert steps == [0, 1, 2]
    assert bench.store.get(KIND, 7, run.id).state == "cancelled"
    assert bench.store.last(KIND, 7) is None
    waiting = bench.store.request(KIND, 7, ASKED)
    bench.store.cancel(waiting)
    assert not bench.run_next(KIND, make), "nothing waits"
    bench.store.cancel(bench.store.get(KIND, 7, waiting.id))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelUnavailable("The model is away."), "The model is away."),
        (ZeroDivisionError(), "Unexpected ZeroDivisionError: see the backend's log."),
        (
            OperationalError("SELECT", {}, Exception("locked")),
            "The database cannot be used now (locked): start it again once that is over.",
        ),
    ],
)
def test_what_fails_says_why_and_reports_stay(bench: Bench, error: Exception, reason: str) -> None:
    bench.store.add_done(KIND, 7, ASKED, REPORT, 1.0)
    run = bench.store.request(KIND, 7, ASKED)
    assert bench.run_next(KIND, fail(error))
    failed = bench.store.get(KIND, 7, run.id)
    assert (failed.state, failed.reason) == ("failed", reason)
    made = bench.store.last(KIND, 7)
    assert made is not None
    assert made[1] == REPORT


def test_three_are_kept_that_are_done_and_three_that_are_not(bench: Bench) -> None:
    forgotten: list[int] = []
    kind = replace(KIND, forget=lambda _settings, run: forgotten.append(run.id))
    numbers = []
    for number in range(2 * MOST_KEPT + 4):
        numbers.append(bench.store.request(kind, 7, ASKED).id)
        made = (lambda *_: REPORT) if number % 2 else fail(ValueError("No."))
        assert bench.run_next(kind, made)
    kept = [each.id for each in bench.store.runs(kind, 7)]
    assert kept == numbers[-2 * MOST_KEPT :][::-1]
    assert [each for each in forgotten if each not in kept][-1:] == [numbers[3]]
    with pytest.raises(NotFound):
        bench.store.get(kind, 7, numbers[0])
    with pytest.raises(NotFound):
        bench.store.get(kind, 8, numbers[-1])
