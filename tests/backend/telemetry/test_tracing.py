"""Facts and stages go with the thread, and with nobody else."""

from __future__ import annotations

import time

import pytest

from backend.telemetry import logs as trace
from backend.telemetry.logs import stage, timed


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(trace, "time", clock)
    return clock


def test_an_inner_stage_is_not_counted_twice(clock: Clock) -> None:
    with timed() as stages, stage("draw"):
        clock.now += 1
        with stage("decide"):
            clock.now += 2
            with stage("model"):
                clock.now += 4
        clock.now += 8
        with stage("model"):
            clock.now += 16
    assert stages.seconds == {"draw": 9, "decide": 2, "model": 20}


def test_a_stage_that_fails_is_counted_too(clock: Clock) -> None:
    @stage("draw")
    @stage("fetch")
    def fail() -> None:
        clock.now += 3
        raise KeyError

    with timed() as stages:
        with pytest.raises(KeyError):
            fail()
        assert stages.now == ""
        with stage("draw"):
            clock.now += 1
    assert stages.seconds == {"fetch": 3, "draw": 1}
