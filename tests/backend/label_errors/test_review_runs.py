"""Reviews are made one after the other; a project has one at a time."""

from __future__ import annotations

import pytest

from backend.database.database import Database
from backend.errors import Busy, ModelUnavailable
from backend.label_errors import review_runs
from backend.label_errors.review_report import ReviewReport
from backend.label_errors.review_runs import MAX_WAITING, Advance, ReviewRuns
from backend.label_errors.review_store import ReviewStore
from tests.backend.fakes.flaky_database import FlakyDatabase


def review(project: int, advance: Advance) -> ReviewReport:
    if project == 1:
        raise ModelUnavailable("The model is away.")
    if project == 2:
        raise ZeroDivisionError
    advance(2, 3)
    return ReviewReport(3, 0, 0.5)


@pytest.fixture
def store() -> ReviewStore:
    return ReviewStore(Database("sqlite://"))


def test_a_review_is_made_and_kept(store: ReviewStore) -> None:
    runs = ReviewRuns(review, store)
    assert runs.get(7) is None
    run = runs.request(7)
    assert (run.state, run.is_over) == ("queued", False)
    assert runs.request(7) is run, "one at a time"
    assert runs.run_next()
    done = runs.get(7)
    assert done is not None
    assert (done.state, done.done, done.total) == ("done", 2, 3)
    assert not runs.run_next()
    kept = store.last(7)
    assert kept is not None
    assert kept.report.reviewed == 3
    assert runs.request(7).state == "queued", "annotations may have changed"


def test_what_was_found_outlives_an_outage_of_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(review_runs, "_KEEP_EVERY_S", 0.0)
    database = FlakyDatabase("sqlite://")
    runs = ReviewRuns(review, ReviewStore(database))
    runs.request(7)
    database.away = 3
    assert runs.run_next()
    kept = ReviewStore(database).last(7)
    assert kept is not None
    assert kept.report.reviewed == 3


@pytest.mark.parametrize(
    ("project", "reason"), [(1, "The model is away."), (2, "Unexpected ZeroDivisionError")]
)
def test_what_fails_says_why_and_the_last_review_stays(
    store: ReviewStore, project: int, reason: str
) -> None:
    store.keep(project, ReviewReport(9, 0, 0.5))
    runs = ReviewRuns(review, store)
    runs.request(project)
    runs.request(7)
    assert runs.run_next()
    assert runs.run_next()
    failed = runs.get(project)
    assert failed is not None
    assert (failed.state, failed.reason[: len(reason)]) == ("failed", reason)
    kept = store.last(project)
    assert kept is not None
    assert kept.report.reviewed == 9


def test_few_wait(store: ReviewStore) -> None:
    runs = ReviewRuns(review, store)
    for project in range(10, 10 + MAX_WAITING):
        runs.request(project)
    with pytest.raises(Busy):
        runs.request(7)


def test_the_newest_are_kept(store: ReviewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.label_errors.review_runs.MAX_KEPT", 3)
    runs = ReviewRuns(review, store)
    for project in range(10, 15):
        runs.request(project)
        runs.run_next()
    assert [project for project in range(10, 15) if runs.get(project)] == [12, 13, 14]
    for project in range(20, 25):
        runs.request(project)
    assert all(runs.get(project) for project in range(20, 25)), "none that waits is forgotten"


def test_without_a_token_nothing_runs(store: ReviewStore) -> None:
    runs = ReviewRuns(None, store)
    runs.request(7)
    assert not runs.run_next()
