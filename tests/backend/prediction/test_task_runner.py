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


class Pictures:
    """Work whose first tasks tell the size of an image; the others wait, as for the model."""

    def __init__(self, image_bytes: int) -> None:
        self.image_bytes = image_bytes
        self.lock, self.gate = threading.Lock(), threading.Event()
        self.running: Counter[int | None] = Counter()

    def __call__(self, task: Task) -> Outcome:
        if task.id not in range(PROJECT_CONCURRENCY):
            with self.lock:
                self.running[task.project_id] += 1
            assert self.gate.wait(20)
        return Outcome([], image_bytes=self.image_bytes)

    def settle(self, expected: dict[int, int]) -> None:
        wait_for(lambda: self.running == expected)
        time.sleep(0.1)
        assert self.running == expected


@pytest.mark.parametrize(
    ("cpus", "image_bytes", "expected"),
    [
        (1, 36 << 20, PROJECT_CONCURRENCY),
        (2, 36 << 20, PROJECT_CONCURRENCY),
        (6, 36 << 20, 8),
        (64, 36 << 20, 12),
        (64, 100 << 20, 5),
        (64, 450 << 20, PROJECT_CONCURRENCY),
        (64, 0, PROJECT_CONCURRENCY),
    ],
    ids=["one CPU", "two", "six", "many", "larger", "large", "unknown"],
)
def test_on_many_cpus_more_tasks_run_where_their_images_are_small(
    cpus: int, image_bytes: int, expected: int
) -> None:
    runner, work = TaskRunner(cpus), Pictures(image_bytes)
    with ThreadPoolExecutor() as pool:
        pool.submit(runner.run, [Task(i, 1, {}) for i in range(40)], VERSION, 1, work)
        work.settle({1: expected})
        assert runner.count_waiting() == {1: 40 - PROJECT_CONCURRENCY}
        work.gate.set()
    assert work.running == {1: 40 - PROJECT_CONCURRENCY}


def test_a_project_that_comes_later_gets_its_share_at_once() -> None:
    runner, work = TaskRunner(64), Pictures(1 << 20)
    with ThreadPoolExecutor() as pool:
        pool.submit(runner.run, [Task(i, 1, {}) for i in range(40)], VERSION, 1, work)
        work.settle({1: 12})
        later = [Task(100 + i, 2, {}) for i in range(40)]
        pool.submit(runner.run, later, VERSION, 2, work)
        work.settle({1: 12, 2: PROJECT_CONCURRENCY})
        pool.submit(runner.run, [Task(200, 3, {})], VERSION, 3, work)
        time.sleep(0.1)
        assert work.running[3] == 0
        work.gate.set()
    assert work.running == {1: 40 - PROJECT_CONCURRENCY, 2: 40, 3: 1}


def test_what_is_known_of_a_projects_images_is_forgotten_with_its_last_task() -> None:
    runner = TaskRunner(64)
    for project in range(20):
        runner.run([Task(1, project, {})], VERSION, project, lambda _: Outcome([], image_bytes=5))
    wait_for(lambda: not runner._running)
    assert not runner._image_bytes
