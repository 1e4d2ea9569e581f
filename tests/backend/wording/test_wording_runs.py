"""Runs are measured one after the other; few wait, and few are kept."""

from __future__ import annotations

import pytest

from backend.errors import Busy, ModelUnavailable, WordingNotFound
from backend.wording.laboratory import Advance
from backend.wording.wording_report import WordingReport
from backend.wording.wording_request import WordingRequest
from backend.wording.wording_runs import MAX_KEPT, MAX_WAITING, WordingRuns


def measure(asked: WordingRequest, advance: Advance) -> WordingReport:
    if asked.label == "away":
        raise ModelUnavailable("The model is away.")
    if asked.label == "broken":
        raise ZeroDivisionError
    advance(2, 3)
    return WordingReport(asked.label, (asked.label,), "diverse")


def asked(label: str, project: int = 7) -> WordingRequest:
    return WordingRequest(project, label)


def test_a_run_goes_from_waiting_to_its_figures() -> None:
    runs = WordingRuns(measure)
    run = runs.request(asked("tree"))
    assert (run.state, run.is_over) == ("queued", False)
    assert runs.request(asked("tree")) == run, "an equal one is not measured twice"
    assert runs.run_next()
    found = runs.get(7, run.id)
    assert (found.state, found.done, found.total) == ("done", 2, 3)
    assert found.report is not None
    assert not runs.run_next()
    assert runs.request(asked("tree")).id != run.id, "pictures may have changed"
    with pytest.raises(WordingNotFound):
        runs.get(8, run.id)
    assert [each.id for each in runs.list_runs(7)][-1] == run.id
    assert runs.list_runs(8) == []


@pytest.mark.parametrize(
    ("label", "reason"),
    [("away", "The model is away."), ("broken", "Unexpected ZeroDivisionError")],
)
def test_what_fails_says_why_and_the_next_one_runs(label: str, reason: str) -> None:
    runs = WordingRuns(measure)
    first, second = runs.request(asked(label)), runs.request(asked("tree"))
    assert runs.run_next()
    assert runs.run_next()
    assert runs.get(7, first.id).reason.startswith(reason)
    assert runs.get(7, second.id).state == "done"


def test_few_wait_and_few_are_kept() -> None:
    runs = WordingRuns(measure)
    for number in range(MAX_WAITING):
        runs.request(asked(f"label {number}"))
    with pytest.raises(Busy):
        runs.request(asked("one more"))
    while runs.run_next():
        pass
    for number in range(2 * MAX_KEPT):
        newest = runs.request(asked(f"later {number}"))
        runs.run_next()
    assert len(runs.list_runs(7)) == MAX_KEPT
    assert runs.get(7, newest.id).state == "done"


def test_without_a_token_nothing_runs() -> None:
    runs = WordingRuns(None)
    runs.request(asked("tree"))
    assert not runs.run_next()
