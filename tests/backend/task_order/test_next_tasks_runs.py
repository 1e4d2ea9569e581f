"""Choices of tasks wait for each other, tell how far they are, and can be cancelled."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from backend.errors import Busy, StudioUnreachable
from backend.task_order.next_tasks import NextTasks
from backend.task_order.next_tasks_runs import MAX_WAITING, NextTasksRun, NextTasksRuns
from backend.task_order.task_picker import Advance

REPORT = NextTasks(5, (), 0, 0, 0, 0, 1.0)


@dataclass
class Bench:
    """Runs whose choices do what a test wants."""

    kept: dict[int, NextTasks] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)
    meanwhile: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runs = NextTasksRuns(self.pick, self.kept.__setitem__, self.stopping)

    def pick(self, project: int, count: int, advance: Advance) -> NextTasks:
        advance(0, 200)
        if "cancel" in self.meanwhile:
            self.runs.cancel(project)
        if "stop" in self.meanwhile:
            self.stopping.set()
        if "fail" in self.meanwhile:
            raise StudioUnreachable("It is away.")
        advance(1, 200)
        self.meanwhile.append(f"{count} of {project}")
        return REPORT

    def last(self, project: int = 7) -> NextTasksRun:
        run = self.runs.get(project)
        assert run is not None
        return run


def test_a_choice_is_made_and_kept() -> None:
    bench = Bench()
    assert not bench.runs.run_next()
    assert bench.runs.get(7) is None
    run = bench.runs.request(7, 5)
    assert bench.runs.request(7, 5) is run, "the same is asked for once"
    assert bench.runs.run_next()
    assert bench.kept == {7: REPORT}
    assert bench.meanwhile == ["5 of 7"]
    assert bench.last().to_json() | {"created": 0} == {
        "count": 5,
        "created": 0,
        "state": "done",
        "done": 1,
        "total": 200,
        "ending": False,
        "reason": "",
    }
    assert not bench.runs.run_next()


def test_another_number_of_tasks_waits_for_the_end_of_the_first() -> None:
    bench = Bench()
    bench.runs.request(7, 5)
    with pytest.raises(Busy, match="5 tasks are being chosen"):
        bench.runs.request(7, 6)
    assert bench.runs.run_next()
    assert bench.runs.request(7, 6).state == "queued"


def test_few_projects_may_wait() -> None:
    bench = Bench()
    for project in range(1, MAX_WAITING + 1):
        bench.runs.request(project, 5)
    with pytest.raises(Busy, match="projects wait already"):
        bench.runs.request(99, 5)


@pytest.mark.parametrize("why", ["cancel", "stop"])
def test_a_choice_that_is_cancelled_at_work_keeps_nothing(why: str) -> None:
    bench = Bench(meanwhile=[why])
    bench.runs.request(7, 5)
    assert bench.runs.run_next()
    assert (bench.last().state, bench.last().is_over, bench.last().done) == ("cancelled", True, 0)
    assert bench.kept == {}
    assert bench.meanwhile == [why], "no picture is looked at after it"


def test_a_choice_that_is_cancelled_while_it_waits_never_begins() -> None:
    bench = Bench()
    bench.runs.cancel(7)
    bench.runs.request(7, 5)
    bench.runs.cancel(7)
    with pytest.raises(Busy, match="not over yet"):
        bench.runs.request(7, 5)
    assert bench.runs.run_next()
    assert bench.last().state == "cancelled"
    assert (bench.meanwhile, bench.kept) == ([], {})
    bench.runs.cancel(7)
    assert bench.runs.request(7, 5).is_ending is False
    assert bench.runs.run_next()
    assert bench.kept == {7: REPORT}


def test_why_a_choice_has_failed_is_told() -> None:
    bench = Bench(meanwhile=["fail"])
    bench.runs.request(7, 5)
    assert bench.runs.run_next()
    assert (bench.last().state, bench.last().reason) == ("failed", "It is away.")
    assert bench.kept == {}


def test_without_a_token_nothing_is_done() -> None:
    runs = NextTasksRuns(None, lambda *_: None, threading.Event())
    runs.request(7, 5)
    assert not runs.run_next()
