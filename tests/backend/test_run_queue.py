"""Runs are done in their order, tell what became of them, and few are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from backend.errors import Busy
from backend.run_queue import Run, RunQueue

DATABASE_FAILED = "The disk of the database is full: start it again once that is over."


@dataclass(frozen=True)
class Named(Run):
    name: str
    made: str = ""


def queue(**options: Any) -> RunQueue[Named]:
    return RunQueue(lambda run: run.name, "A run", **options)


def ask(runs: RunQueue[Named], name: str, max_kept: int = 9) -> Named:
    return runs.request(lambda open_: Named(name), max_kept)


def do(run: Named) -> dict[str, Any]:
    if run.name == "refused":
        raise Busy("Not now.")
    if run.name == "full":
        raise OperationalError("SELECT 1", {}, Exception("database or disk is full"))
    if run.name == "wrong":
        raise ValueError("No such label.")
    return {"made": run.name.upper()}


def test_runs_are_done_in_the_order_in_which_they_were_asked_for_last() -> None:
    runs = queue()
    for name in ("a", "b", "a"):
        ask(runs, name)
    assert [each.name for each in runs.runs()] == ["b", "a"], "a new one takes the old one's place"
    assert runs.run_next(do)
    assert [(each.state, each.made) for each in runs.runs()] == [("done", "B"), ("queued", "")]
    assert runs.run_next(do)
    assert not runs.run_next(do)


def test_a_run_that_is_open_is_left_where_it_is() -> None:
    runs = queue()
    first, _ = ask(runs, "a"), ask(runs, "b")
    assert runs.request(lambda open_: open_[0], 9) is first
    assert [each.name for each in runs.runs()] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "told", "reason"),
    [
        ("refused", (Busy,), "Not now."),
        ("wrong", (Busy, ValueError), "No such label."),
        ("full", (Busy,), DATABASE_FAILED),
        ("wrong", (Busy,), "Unexpected ValueError: see the backend's log."),
    ],
)
def test_what_fails_says_why(name: str, told: tuple[type[Exception], ...], reason: str) -> None:
    runs = queue(told=told)
    ask(runs, name)
    assert runs.run_next(do)
    (run,) = runs.runs()
    assert (run.state, run.reason) == ("failed", reason)


def test_the_oldest_that_are_over_are_forgotten() -> None:
    runs = queue()
    for name in ("a", "b", "waits"):
        ask(runs, name)
    for _ in range(2):
        assert runs.run_next(do)
    ask(runs, "d", max_kept=3)
    assert [each.name for each in runs.runs()] == ["b", "waits", "d"]
    ask(runs, "e", max_kept=1)
    assert [each.name for each in runs.runs()] == ["waits", "d", "e"], "what is open stays"
