"""Tasks of batches: projects take turns, and an error ends a batch."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

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
