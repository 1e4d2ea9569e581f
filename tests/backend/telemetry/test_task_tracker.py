"""What runs, what failed, and how fast; all of it bounded."""

from __future__ import annotations

import pytest

from backend.errors import ImageNotFound
from backend.telemetry.logs import about, stage
from backend.telemetry.task_tracker import (
    MAX_FAILURES,
    PACE_S,
    HandledTask,
    TaskTracker,
)


def do(
    tracker: TaskTracker, task: int, project: int | None = 1, error: Exception | None = None
) -> None:
    with tracker.task(task, project, "batch") as work:
        if error is None:
            work.drawn(2)
        else:
            work.failed(error)


def test_what_was_wrong_with_a_task_is_forgotten_once_it_is_predicted() -> None:
    tracker = TaskTracker()

    def fail(task: int, project: int) -> None:
        with tracker.task(task, project, "batch") as work:
            work.failed(ImageNotFound("Gone."))

    for task, project in ((5, 7), (6, 7), (5, 7), (5, 8)):
        fail(task, project)
    with tracker.task(5, 7, "batch") as work:
        work.drawn(1)
        work.incomplete(ImageNotFound("One is gone."))
    assert len(tracker.failures) == 5, "it is not whole"
    with tracker.task(5, 7, "batch") as work:
        work.drawn(1)
    left = [(each.task, each.project) for each in tracker.failures]
    assert left == [(5, 8), (6, 7)]
    fail(5, 7)
    assert tracker.failures[0].task == 5
    assert tracker.failed == 5, "tries since the start"


def test_a_record_says_who_what_and_where_the_time_went() -> None:
    heard: list[HandledTask] = []
    tracker = TaskTracker((heard.append,))
    with about(request="r1"), tracker.task(7, 3, "opened") as work:
        with stage("fetch"):
            pass
        work.drawn(5)
    (record,) = heard
    assert (record.task, record.project, record.priority) == (7, 3, "opened")
    assert (record.request, record.regions, record.failed) == ("r1", 5, False)
    assert set(record.stages) == {"fetch"}
    assert 0 <= record.stages["fetch"] <= record.seconds


def test_what_runs_is_seen_with_its_stage() -> None:
    tracker = TaskTracker()
    with tracker.task(1, 3, "batch"), tracker.task(2, 4, "interactive"), stage("model"):
        first, second = tracker.running
        assert (first.task, first.project, first.priority, first.stages.now) == (1, 3, "batch", "")
        assert (second.task, second.project, second.stages.now) == (2, 4, "model")
    assert tracker.running == []


def test_failures_are_remembered_the_latest_first_and_not_for_ever() -> None:
    tracker = TaskTracker()
    for task in range(MAX_FAILURES + 10):
        do(tracker, task, error=ImageNotFound(f"There is no file {task}."))
    assert len(tracker.failures) == MAX_FAILURES
    assert tracker.failures[0].sentence == f"There is no file {MAX_FAILURES + 9}."
    assert {failure.reason for failure in tracker.failures} == {"ImageNotFound"}
    assert (tracker.done, tracker.failed) == (0, MAX_FAILURES + 10)


def test_what_is_raised_is_a_failure_and_goes_on() -> None:
    tracker = TaskTracker()
    with pytest.raises(ZeroDivisionError), tracker.task(1, 1, "batch"):
        raise ZeroDivisionError
    assert tracker.failures[0].reason == "ZeroDivisionError"
    assert tracker.running == []


def test_the_pace_is_that_of_the_last_minute() -> None:
    now = [1000.0]
    tracker = TaskTracker(clock=lambda: now[0])
    now[0] += 20
    for task in range(40):
        do(tracker, task)
    assert tracker.pictures_per_second == pytest.approx(40 / 20)
    now[0] += 50
    assert tracker.pictures_per_second == pytest.approx(40 / PACE_S)
    with tracker.task(1, 1, "batch") as work:
        work.drawn(regions=9, pictures=5)
    assert tracker.pictures_per_second == pytest.approx(45 / PACE_S)
    now[0] += 61
    assert tracker.pictures_per_second == 0


def test_an_incomplete_task_is_done_and_is_shown_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    records: list[HandledTask] = []
    tracker = TaskTracker((records.append,))
    with tracker.task(7, 3, "batch") as work:
        work.drawn(5, pictures=2)
        work.incomplete(ImageNotFound("Predicted without 1 of 3 pictures: there is no file."))
    assert (tracker.done, tracker.failed) == (1, 0)
    assert tracker.failures == records
    assert (records[0].failed, records[0].reason) == (False, "ImageNotFound")
    (line,) = caplog.records
    assert line.levelname == "WARNING"
    assert line.getMessage() == (
        "Task 7: 5 regions. Predicted without 1 of 3 pictures: there is no file."
    )
