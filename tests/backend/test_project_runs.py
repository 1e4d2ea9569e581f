"""Runs over projects are done one after the other; a project has one at a time."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy.exc import OperationalError

from backend import project_runs
from backend.errors import Busy, ModelUnavailable
from backend.project_runs import MAX_WAITING, Advance, ProjectRuns


def count(project: int, advance: Advance) -> int:
    if project == 1:
        raise ModelUnavailable("The model is away.")
    if project == 2:
        raise ZeroDivisionError
    advance(2, 3)
    return 3


@pytest.fixture
def kept() -> dict[int, int]:
    """Project -> its last report."""
    return {}


@pytest.fixture
def runs(kept: dict[int, int]) -> ProjectRuns[int]:
    return ProjectRuns(count, kept.__setitem__, "A count")


def test_a_report_is_made_and_kept(runs: ProjectRuns[int], kept: dict[int, int]) -> None:
    assert runs.get(7) is None
    run = runs.request(7)
    assert (run.state, run.is_over) == ("queued", False)
    assert runs.request(7) is run, "one at a time"
    assert runs.run_next()
    done = runs.get(7)
    assert done is not None
    assert (done.state, done.done, done.total) == ("done", 2, 3)
    assert not runs.run_next()
    assert kept == {7: 3}
    assert runs.request(7).state == "queued", "annotations may have changed"


def test_what_was_found_outlives_an_outage_of_the_database(
    monkeypatch: pytest.MonkeyPatch, kept: dict[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(project_runs, "_KEEP_EVERY_S", 0.0)
    refusals = 3

    def keep(project: int, report: int) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise OperationalError("INSERT", {}, Exception("database is locked"))
        kept[project] = report

    runs = ProjectRuns(count, keep, "A count")
    runs.request(7)
    assert runs.run_next()
    assert kept == {7: 3}
    done = runs.get(7)
    assert done is not None
    assert done.state == "done"
    said = [each.message for each in caplog.records]
    assert said == ["A count is not kept yet: database is locked; next try in 0 s"] * 3


def test_a_stop_of_the_server_ends_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_runs, "_KEEP_EVERY_S", 3600.0)
    stopping = threading.Event()

    def keep(project: int, report: int) -> None:
        threading.Timer(0.05, stopping.set).start()
        raise OperationalError("INSERT", {}, Exception("disk is full"))

    runs = ProjectRuns(count, keep, "A count", stopping)
    runs.request(7)
    assert runs.run_next()
    failed = runs.get(7)
    assert failed is not None
    assert failed.state == "failed"


@pytest.mark.parametrize(
    ("project", "reason"), [(1, "The model is away."), (2, "Unexpected ZeroDivisionError")]
)
def test_what_fails_says_why_and_the_last_report_stays(
    runs: ProjectRuns[int], kept: dict[int, int], project: int, reason: str
) -> None:
    kept[project] = 9
    runs.request(project)
    runs.request(7)
    assert runs.run_next()
    assert runs.run_next()
    failed = runs.get(project)
    assert failed is not None
    assert (failed.state, failed.reason[: len(reason)]) == ("failed", reason)
    assert kept == {project: 9, 7: 3}


def test_few_wait(runs: ProjectRuns[int]) -> None:
    for project in range(10, 10 + MAX_WAITING):
        runs.request(project)
    with pytest.raises(Busy):
        runs.request(7)


def test_the_newest_are_kept(runs: ProjectRuns[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_runs, "MAX_KEPT", 3)
    for project in range(10, 15):
        runs.request(project)
        runs.run_next()
    assert [project for project in range(10, 15) if runs.get(project)] == [12, 13, 14]
    for project in range(20, 25):
        runs.request(project)
    assert all(runs.get(project) for project in range(20, 25)), "none that waits is forgotten"


def test_without_a_token_nothing_runs(kept: dict[int, int]) -> None:
    runs = ProjectRuns(None, kept.__setitem__, "A count")
    runs.request(7)
    assert not runs.run_next()
