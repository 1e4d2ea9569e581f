"""Batches: projects share the threads, a deadline ends the wait, and each task is made once.

And failures: their order, and how many are kept.
"""

import threading
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from backend.database.database import Database
from backend.inference.queue import Priority
from backend.jobs.job_store import JobStore
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.prediction import batches
from backend.prediction.batches import PROJECT_CONCURRENCY, Outcome, TaskRunner
from backend.prediction.images import PredictionSpec
from backend.projects.failures import FailureStore
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.databases import FlakyDatabase
from tests.backend.fakes.waiting import wait_for

BATCH = PredictionSpec(parse_label_config(brush_config("red"), None), "v1", Priority.BATCH, 7)
OPENED = replace(BATCH, priority=Priority.OPENED)
#: More tasks than a project may have at work.
MANY = range(1, 2 * PROJECT_CONCURRENCY + 1)
FIRST = MANY[:PROJECT_CONCURRENCY]
NEVER = threading.Event()  # halts a job


class HeldWork:
    """Makes predictions; those of the held tasks wait until `release`."""

    def __init__(self, *held: int) -> None:
        self.made: list[Any] = []
        self.held = {task: threading.Event() for task in held}
        self.started = {task: threading.Event() for task in held}

    def __call__(self, task: Task, spec: PredictionSpec) -> Outcome:
        if isinstance(task.id, int) and task.id in self.held:
            self.started[task.id].set()
            assert self.held[task.id].wait(60)
        self.made.append(task.id)
        return Outcome({"model_version": spec.version, "score": 0.5, "result": [task.id]})

    def release(self) -> None:
        for event in self.held.values():
            event.set()


@dataclass
class LateJobs:
    """Keeps late tasks; the ids in `open` have a job."""

    open: set[int] = field(default_factory=set)
    added: list[int] = field(default_factory=list)

    def add_late_tasks(self, project: int, tasks: Collection[int]) -> None:
        assert project == 7
        self.added += sorted(tasks)

    def late_task_ids(self, project: int, ended_within_s: float) -> set[int]:
        return self.open


def tasks(*ids: int) -> list[Task]:
    return [Task(i, 7, {"image": f"{i}.png"}) for i in ids]


def made_of(outcomes: list[Outcome]) -> list[Any]:
    """The task that each entry is of; None where there is none."""
    return [o.entry["result"][0] if isinstance(o.entry, dict) else None for o in outcomes]


def test_all_that_is_ready_in_time_is_answered_in_order_and_made_once() -> None:
    late, work = LateJobs(open={4}), HeldWork()
    outcomes = TaskRunner(None, late, 60).run(tasks(3, 1, 4, 3), BATCH, work)
    assert made_of(outcomes) == [3, 1, None, 3], "a job has the fourth"
    assert (sorted(work.made), late.added) == ([1, 3], [])


def test_a_job_that_is_halted_begins_no_further_task() -> None:
    halt, made = threading.Event(), list[int]()

    def work(task: Task, spec: PredictionSpec) -> Outcome:
        made.append(int(task.id or 0))
        halt.set()
        return Outcome({"result": []})

    outcomes = TaskRunner().run_all(tasks(*range(1, 200)), BATCH, work, halt)
    assert len(outcomes) == 199
    assert 1 <= len(made) < 100, "those that threads had begun"


@pytest.mark.parametrize("has_token", [True, False])
def test_what_has_not_begun_is_late(has_token: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    work, late = HeldWork(*FIRST), LateJobs()
    runner = TaskRunner(None, late if has_token else None, 2)
    assert made_of(runner.run(tasks(*MANY), BATCH, work)) == [None] * len(MANY)
    assert runner.count_waiting() == {(Priority.BATCH, 7): len(FIRST)}
    work.release()
    wait_for(lambda: runner.count_waiting() == {})
    assert sorted(work.made) == list(FIRST)
    assert late.added == (list(MANY) if has_token else []), "a job takes from memory what is made"
    assert made_of(runner.run_all(tasks(*MANY), BATCH, work, NEVER)) == list(MANY)
    monkeypatch.setattr(batches, "_CHOOSING_S", 0.0)
    assert made_of(runner.run(tasks(*MANY), BATCH, work)) == list(MANY)
    assert sorted(work.made) == list(MANY), "each was made once"


def test_a_prediction_whose_end_is_being_noted_is_late_and_kept() -> None:
    """It is packed by then, but answered to nobody."""
    noted, late, work = threading.Event(), LateJobs(), HeldWork()
    failures = Mock(FailureStore, solve=lambda ids: noted.wait(60))
    runner = TaskRunner(failures, late, 2)
    assert made_of(runner.run(tasks(1), BATCH, work)) == [None]
    assert (work.made, late.added) == ([1], [1])
    noted.set()
    assert made_of(runner.run_all(tasks(1), BATCH, work, NEVER)) == [1]
    assert work.made == [1]


def test_the_time_in_line_counts_towards_the_deadline() -> None:
    work, late = HeldWork(1), LateJobs()
    runner = TaskRunner(None, late, 60)
    assert made_of(runner.run(tasks(1), BATCH, work, waited_s=60)) == [None]
    assert late.added == [1]
    work.release()


def test_two_requests_for_a_task_share_it_and_one_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """From two answers, Label Studio would store it twice; what one waits for is not late."""
    work, late = HeldWork(1), LateJobs()
    runner, hasty = TaskRunner(None, late, 60), 59.7
    with ThreadPoolExecutor() as pool:
        first = pool.submit(runner.run, tasks(1, 5), BATCH, work)
        assert work.started[1].wait(60)
        second = pool.submit(runner.run_all, tasks(1, 2), BATCH, work, NEVER)
        wait_for(lambda: 2 in work.made)
        assert made_of(runner.run(tasks(1), BATCH, work, waited_s=hasty)) == [None]
        work.release()
        answers = [made_of(first.result(60)), made_of(second.result(60))]
    assert (answers[0][1], answers[1][1], late.added) == (5, 2, [])
    assert sorted([answers[0][0], answers[1][0]], key=str) == [1, None]
    assert sorted(work.made) == [1, 2, 5]
    lost = made_of(runner.run(tasks(1), BATCH, work))
    assert lost == [None], "its tasks may have been chosen before that answer was stored"
    monkeypatch.setattr(batches, "_CHOOSING_S", 0.0)
    assert made_of(runner.run(tasks(1), BATCH, work)) == [1], "in case that answer was lost"


def test_an_opened_task_comes_before_its_own_batch_and_is_made_once() -> None:
    work, runner = HeldWork(*FIRST, 9), TaskRunner()
    with ThreadPoolExecutor() as pool:
        batch = pool.submit(runner.run, tasks(*FIRST, 8, 9), BATCH, work)
        wait_for(lambda: runner.count_waiting() == {(Priority.BATCH, 7): len(FIRST) + 2})
        opened = pool.submit(runner.run, tasks(9), OPENED, work)
        assert work.started[9].wait(60)
        counts = {(Priority.BATCH, 7): len(FIRST) + 1, (Priority.OPENED, 7): 1}
        assert runner.count_waiting() == counts
        work.held[9].set()
        assert made_of(opened.result(60)) == [9]
        assert work.made == [9]
        work.release()
        assert made_of(batch.result(60)) == [*FIRST, 8, None]
    assert sorted(work.made) == [*FIRST, 8, 9]


def test_two_who_open_a_task_at_once_both_get_it() -> None:
    """Annotators who begin a project together are all handed its first task."""
    work, runner = HeldWork(1), TaskRunner()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(runner.run, tasks(1), OPENED, work)
        assert work.started[1].wait(60)
        second = pool.submit(runner.run, tasks(1), OPENED, work)
        work.release()
        assert made_of(first.result(60) + second.result(60)) == [1, 1]
    assert work.made == [1]


def test_an_opened_task_that_takes_too_long_is_left_to_a_job_and_kept() -> None:
    work, late = HeldWork(1), LateJobs()
    runner = TaskRunner(None, late, 1)
    assert runner.run(tasks(1), OPENED, work) == [Outcome([])]
    assert late.added == [1]
    work.release()
    wait_for(lambda: runner.count_waiting() == {})
    assert made_of(runner.run(tasks(1), OPENED, work)) == [1]
    assert made_of(runner.run(tasks(1), replace(OPENED, version="v2"), work)) == [1]
    assert work.made == [1, 1]


def test_what_is_kept_is_bounded_and_so_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_KEPT_BYTES", 300)  # four of them, packed
    work, late = HeldWork(), LateJobs()
    runner = TaskRunner(None, late, 60)
    assert made_of(runner.run_all(tasks(*MANY), BATCH, work, NEVER)) == list(MANY)
    assert 0 < len(runner._kept) < len(MANY)
    monkeypatch.setattr(batches, "_ANSWER_BYTES", 1)
    answer = made_of(runner.run(tasks(21, 22, 23), BATCH, work))
    (answered,) = filter(None, answer)
    assert late.added == sorted({21, 22, 23} - {answered})


@pytest.mark.parametrize("opened", [True, False])
def test_failures_are_noted_until_the_task_is_predicted(opened: bool, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/jobs.db")
    failures, late = FailureStore(database), LateJobs()
    runner, whole = TaskRunner(failures, late, 60), HeldWork()

    def partial_work(task: Task, spec: PredictionSpec) -> Outcome:
        return replace(whole(task, spec), missing="Predicted without 1 of 3 pictures.")

    def run(task: int, work: batches.Work) -> Outcome:
        return runner.run(tasks(task), OPENED if opened else BATCH, work)[0]

    assert run(1, lambda *_: Outcome([], "No image.")) == Outcome([], "No image.")
    assert made_of([run(2, partial_work)]) == [2]
    assert {each.task: each.reason for each in failures.failing()} == {
        1: "No image.",
        2: "Predicted without 1 of 3 pictures.",
    }
    assert made_of([run(1, whole)]) == [1]
    assert [each.task for each in failures.failing()] == [2]
    assert made_of([run(2, whole)]) == [2]
    assert failures.failing() == [], "what lacked a picture was not kept"
    assert late.added == [], "a task that has failed is not late"
    database.close()


def test_what_is_no_fault_of_one_task_ends_all_of_them_at_once() -> None:
    runner, asked, late = TaskRunner(), list[Any](), LateJobs()

    def gone_model(task: Task, spec: PredictionSpec) -> Outcome:
        asked.append(task.id)
        raise ConnectionError("the model is gone")

    with pytest.raises(ConnectionError, match="the model is gone"):
        runner.run(tasks(*range(500)), BATCH, gone_model)
    assert len(asked) < 500
    wait_for(lambda: runner.count_waiting() == {})
    assert made_of(runner.run(tasks(1), BATCH, HeldWork())) == [1]
    assert late.added == []


def test_an_outage_costs_no_prediction(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = FlakyDatabase(f"sqlite:///{tmp_path}/jobs.db")
    store = JobStore(database)
    runner, work = TaskRunner(FailureStore(database), store, 60), HeldWork(*FIRST)
    database.away = float("inf")
    assert made_of(runner.run(tasks(21, 22), BATCH, work)) == [21, 22]
    assert runner.run(tasks(23), BATCH, lambda *_: Outcome([], "No image."))[0].reason
    late = runner.run(tasks(*MANY), BATCH, work, waited_s=59.7)
    assert made_of(late) == [None] * len(MANY)
    assert "shutting down" in caplog.text
    database.away = 0
    assert store.list_jobs() == []
    work.release()
    assert made_of(runner.run(tasks(*FIRST), BATCH, work)) == list(FIRST)
    database.close()


def test_projects_share_the_threads_and_none_takes_more_than_its_share() -> None:
    runner, lock, seen = TaskRunner(), threading.Lock(), list[int | None]()
    gates = {project: threading.Event() for project in (1, 2, 3)}

    def work(task: Task, spec: PredictionSpec) -> Outcome:
        with lock:
            seen.append(task.project_id)
        assert gates[task.project_id or 0].wait(60)
        return Outcome([])

    full = {1: PROJECT_CONCURRENCY, 2: PROJECT_CONCURRENCY}
    with ThreadPoolExecutor() as pool:
        for number, project in enumerate((1, 1, 2)):
            some = [Task(10 * number + i, project, {}) for i in range(PROJECT_CONCURRENCY + 1)]
            pool.submit(runner.run, some, replace(BATCH, project=project), work)
        wait_for(lambda: Counter(seen) == full)
        some = [Task(i, 3, {}) for i in range(PROJECT_CONCURRENCY + 1)]
        pool.submit(runner.run, some, replace(BATCH, project=3), work)
        wait_for(lambda: (Priority.BATCH, 3) in runner.count_waiting())
        assert Counter(seen) == full, "all threads are taken"
        gates[1].set()
        wait_for(lambda: Counter(seen)[3] == PROJECT_CONCURRENCY)
        assert Counter(seen)[2] == PROJECT_CONCURRENCY
        for gate in gates.values():
            gate.set()
    assert Counter(seen)[3] == PROJECT_CONCURRENCY + 1
    assert runner.count_waiting() == {}
