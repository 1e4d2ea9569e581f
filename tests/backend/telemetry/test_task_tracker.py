"""Tasks that run, and requests that were refused."""

import json

import pytest

from backend.errors import ImageNotFound
from backend.telemetry.logs import about, stage
from backend.telemetry.task_tracker import PACE_S, TaskTracker, TrackedTask
from tests.backend.telemetry.logged import Logged, lines


def test_a_line_for_people_and_one_for_machines(logged: Logged) -> None:
    written = []
    for log_format in ("text", "json"):
        stream = logged(log_format=log_format)
        task = TaskTracker().task("sieben ä", 3, "batch")
        with about(request="r1"), task as work, stage("fetch"):
            work.regions = 5
        written += lines(stream)
    people, machines = written
    assert " INFO backend.telemetry.task_tracker: Task sieben ä: 5 regions (" in people
    for part in ("request=r1", "project=3", "urgency=batch", "ms=0", "fetch_ms=0"):
        assert part in people
    event = json.loads(machines)
    assert event.pop("time").endswith("Z")
    said = {"level": "INFO", "logger": "backend.telemetry.task_tracker"}
    said |= {"message": "Task sieben ä: 5 regions", "request": "r1", "urgency": "batch"}
    assert event == said | {"project": 3, "task": "sieben ä", "ms": 0, "fetch_ms": 0}


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


def test_the_pace_is_that_of_the_last_minute() -> None:
    now = [1000.0]
    tracker = TaskTracker(clock=lambda: now[0])
    now[0] += 20
    for task in range(40):
        with tracker.task(task, 1, "batch") as work:
            work.images = 1
    assert tracker.images_per_second == pytest.approx(40 / 20)
    now[0] += 50
    assert tracker.images_per_second == pytest.approx(40 / PACE_S)
    with tracker.task(1, 1, "batch") as work:
        work.images = 5
    assert tracker.images_per_second == pytest.approx(45 / PACE_S)
    now[0] += 61
    assert tracker.images_per_second == 0


def test_a_record_says_who_what_why_and_when(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[TrackedTask] = []
    tracker = TaskTracker(heard.append)
    with pytest.raises(ZeroDivisionError), tracker.task(1, 1, "batch"):
        raise ZeroDivisionError
    assert (heard[0].has_prediction, type(heard[0].error).__name__) == (False, "ZeroDivisionError")
    assert (tracker.running, tracker.done) == ([], 0)
    caplog.clear()
    reason = "Predicted without 1 of 3 pictures: there is no file."
    with tracker.task(7, 3, "opened") as work:
        with stage("fetch"):
            work.regions = 5
        work.incomplete(ImageNotFound(reason))
    record = heard[1]
    assert (record.task, record.priority, record.regions) == (7, "opened", 5)
    assert (record.has_prediction, type(record.error).__name__) == (True, "ImageNotFound")
    assert set(record.stages.seconds) == {"fetch"}
    assert 0 <= record.stages.seconds["fetch"] <= record.seconds
    assert tracker.done == 1
    (line,) = caplog.records
    assert (line.levelname, line.getMessage()) == ("WARNING", f"Task 7: 5 regions. {reason}")
