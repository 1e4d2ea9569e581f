"""Tasks of batches: projects take turns, and an error ends a batch."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from backend.label_studio.requests import Task
from backend.prediction.task_runner import PROJECT_CONCURRENCY, Outcome, TaskRunner
from tests.backend.prediction.held_work import VERSION, GoneModel, tasks, wait_for


def test_what_is_no_fault_of_one_task_ends_all_of_them_at_once() -> None:
    work = GoneModel()
    with pytest.raises(ConnectionError, match="the model is gone"):
        TaskRunner().run(tasks(*range(500)), VERSION, 7, work)
    assert len(work.asked) < 500


def test_projects_take_turns_and_none_takes_more_than_its_share() -> None:
    runner, lock, seen = TaskRunner(), threading.Lock(), []
    gate = threading.Event()

    def work(task: Task) -> Outcome:
        with lock:
            seen.append(task.project_id)
        assert gate.wait(20)
        return Outcome([])

    with ThreadPoolExecutor() as pool:
        for project in (1, 1, 2):
            some = [Task(i, project, {}) for i in range(20)]
            pool.submit(runner.run, some, VERSION, project, work)
        wait_for(lambda: len(seen) == 2 * PROJECT_CONCURRENCY)
        time.sleep(0.1)
        assert sorted(seen) == [1] * PROJECT_CONCURRENCY + [2] * PROJECT_CONCURRENCY
        assert runner.count_waiting() == {1: 40, 2: 20}
        gate.set()
    assert len(seen) == 60


def test_a_task_stays_in_its_queue_until_a_thread_is_free() -> None:
    """What waits anywhere else can be neither counted nor dropped."""
    runner, lock, seen = TaskRunner(), threading.Lock(), list[int | None]()
    gates = {project: threading.Event() for project in (1, 2, 3)}

    def work(task: Task) -> Outcome:
        with lock:
            seen.append(task.project_id)
        assert gates[task.project_id or 0].wait(20)
        return Outcome([])

    def is_waiting(project: int) -> bool:
        return project in runner.count_waiting()

    with ThreadPoolExecutor() as pool:
        for project in gates:
            some = [Task(i, project, {}) for i in range(PROJECT_CONCURRENCY + 1)]
            pool.submit(runner.run, some, VERSION, project, work)
            wait_for(partial(is_waiting, project))
        wait_for(lambda: len(seen) == 2 * PROJECT_CONCURRENCY)
        queued = {project: len(queue) for (project, _), queue in runner._queues.items()}
        assert queued == {1: 1, 2: 1, 3: PROJECT_CONCURRENCY + 1}
        gates[1].set()
        shares = {1: PROJECT_CONCURRENCY + 1, 2: PROJECT_CONCURRENCY, 3: PROJECT_CONCURRENCY}
        wait_for(lambda: Counter(seen) == shares)
        for gate in gates.values():
            gate.set()
    assert len(seen) == 3 * (PROJECT_CONCURRENCY + 1)
