"""Failures: their order, and how many are kept."""

from __future__ import annotations

import pytest

from backend.database.database import Database
from backend.prediction.failures import Failure, FailureStore


def test_failures_come_newest_first_of_one_job_or_of_all(url: str) -> None:
    database = Database(url, lambda: 1000.0)
    failures = FailureStore(database)
    failures.add([(5, "No image."), (6, "Too large.")], job=1)
    failures.add([(7, "Gone.")])
    expected = [
        Failure(0, 7, "Gone.", 1000.0),
        Failure(1, 6, "Too large.", 1000.0),
        Failure(1, 5, "No image.", 1000.0),
    ]
    assert failures.newest() == expected
    assert failures.newest(limit=2) == expected[:2]
    assert failures.newest(1) == expected[1:]
    assert failures.newest(2) == []
    assert (failures.task_ids(1), failures.task_ids(0)) == ({5, 6}, {7})
    database.close()


def test_an_old_failure_of_a_job_loses_its_reason_and_others_go(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.prediction.failures._MAX_REASONS", 2)
    database = Database(url)
    failures = FailureStore(database)
    for job in (0, 1):
        for task in range(4):
            failures.add([(task, "r")], job)
        assert [failure.task for failure in failures.newest(job)] == [3, 2]
    assert failures.task_ids(0) == {2, 3}
    assert failures.task_ids(1) == {0, 1, 2, 3}, "so that the job does not predict them again"
    database.close()
