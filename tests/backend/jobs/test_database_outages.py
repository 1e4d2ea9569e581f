"""Work that outlives outages of the database."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from backend.jobs import database_outages
from backend.jobs.database_outages import DatabaseOutages
from tests.backend.conftest import Clock

AWAY = OperationalError("UPDATE", {}, Exception("the database is shutting down"))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_outages, "_PAUSE_S", 0.0)


class Work:
    """Work with many outages, each of so many failures; an hour passes between two outages."""

    def __init__(self, outages: list[int], clock: Clock) -> None:
        self.outages = DatabaseOutages(threading.Event(), clock)
        self._failures = outages
        self._clock = clock

    def __call__(self) -> str:
        while self._failures:
            if self._failures[0] == 0:
                self._failures.pop(0)
                self.outages.end()
                self._clock.now += 3600
                continue
            self._failures[0] -= 1
            self._clock.now += 300
            raise AWAY
        return "done"


def test_any_number_of_outages_is_outlived(clock: Clock) -> None:
    work = Work([10] * 30, clock)
    assert work.outages.outlive(work) == "done"


def test_one_that_is_too_long_ends_the_work(clock: Clock) -> None:
    work = Work([2, 14], clock)
    with pytest.raises(OperationalError):
        work.outages.outlive(work)


def test_other_errors_are_no_outage(clock: Clock) -> None:
    asked = []

    def work() -> None:
        asked.append(1)
        raise IntegrityError("INSERT", {}, Exception("twice"))

    with pytest.raises(IntegrityError):
        DatabaseOutages(threading.Event(), clock).outlive(work)
    assert asked == [1]


def test_who_is_to_stop_waits_for_nothing(clock: Clock) -> None:
    stopping = threading.Event()
    stopping.set()
    work = Work([1], clock)
    with pytest.raises(OperationalError):
        DatabaseOutages(stopping, clock).outlive(work)
