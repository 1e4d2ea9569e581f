"""What runs, what failed, and how fast; all of it bounded."""

from __future__ import annotations

import pytest

from backend.errors import ImageNotFound
from backend.telemetry.logs import stage
from backend.telemetry.task_tracker import PACE_S, TaskTracker, TrackedTask


def test_a_record_says_who_what_and_where_the_time_went() -> None:
    heard: list[TrackedTask] = []
    tracker = TaskTracker(heard.append)
    with tracker.task(7, 3, "opened") as work:
        with stage("fetch"):
            pass
        work.drawn(5)
    (record,) = heard
    assert (record.task, record.priority) == (7, "opened")
    assert (record.regions, record.has_prediction, record.reason) == (5, True, "")
    assert set(record.stages.seconds) == {"fetch"}
    assert 0 <= record.stages.seconds["fetch"] <= record.seconds


def test_what_runs_is_seen_with_its_stage() -> None:
    tracker = TaskTracker()
    with tracker.task(1, 3, "batch"), tracker.task(2, 4, "interactive"), stage("model"):
        first, second = tracker.running
        assert (first.task, first.project, first.priority, first.stages.now) == (1, 3, "batch", "")
        assert (second.task, second.project, second.stages.now) == (2, 4, "model")
    assert tracker.running == []


def test_refused_requests_are_remembered_and_not_for_ever() -> None:
    tracker = TaskTracker()
    for number in range(30):
        tracker.refused(f"Request {number} is too large.")
    sentences = [each.sentence for each in tracker.refusals]
    assert (len(sentences), sentences[-1]) == (20, "Request 29 is too large.")


def test_what_is_raised_is_a_failure_and_goes_on() -> None:
    heard: list[TrackedTask] = []
    tracker = TaskTracker(heard.append)
    with pytest.raises(ZeroDivisionError), tracker.task(1, 1, "batch"):
        raise ZeroDivisionError
    assert (heard[0].has_prediction, heard[0].reason) == (False, "ZeroDivisionError")
    assert (tracker.running, tracker.done) == ([], 0)


def test_the_pace_is_that_of_the_last_minute() -> None:
    now = [1000.0]
    tracker = TaskTracker(clock=lambda: now[0])
    now[0] += 20
    for task in range(40):
        with tracker.task(task, 1, "batch") as work:
            work.drawn(2)
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
    records: list[TrackedTask] = []
    tracker = TaskTracker(records.append)
    with tracker.task(7, 3, "batch") as work:
        work.drawn(5, pictures=2)
        work.incomplete(ImageNotFound("Predicted without 1 of 3 pictures: there is no file."))
    assert tracker.done == 1
    assert (records[0].has_prediction, records[0].reason) == (True, "ImageNotFound")
    (line,) = caplog.records
    assert line.levelname == "WARNING"
    assert line.getMessage() == (
        "Task 7: 5 regions. Predicted without 1 of 3 pictures: there is no file."
    )
