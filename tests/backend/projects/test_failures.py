"""The tasks that have failed, until they are predicted."""

import pytest

from backend.database.database import Database
from backend.projects.failures import FailingTask, FailureCount, FailureStore


def test_a_task_fails_until_it_is_predicted(url: str) -> None:
    now = [1000.0]
    database = Database(url, lambda: now[0])
    failures = FailureStore(database)
    assert (failures.failing(), failures.count()) == ([], FailureCount(0, None))
    failures.add([(5, "No image."), (6, "Too large.")], job=1, project=7)
    now[0] = 1060.0
    failures.add([(5, "Gone.")])
    five = FailingTask(5, 7, 0, "Gone.", at=1060.0, since=1000.0)
    six = FailingTask(6, 7, 1, "Too large.", at=1000.0, since=1000.0)
    assert failures.failing() == [five, six]
    assert failures.failing(limit=1) == [five]
    assert failures.count() == FailureCount(2, 1000.0)
    failures.solve([5, 99])
    assert failures.failing() == [six]
    assert failures.count() == FailureCount(1, 1000.0)
    assert [(each.task, each.reason) for each in failures.of_job(1)] == [(6, "Too large.")]
    assert failures.by_project() == {7: 1}
    assert failures.task_ids(1) == {6}
    now[0] = 1120.0
    failures.add([(5, "Gone.")], project=7)
    assert failures.failing()[0] == FailingTask(5, 7, 0, "Gone.", at=1120.0, since=1120.0)
    now[0] += 31 * 86400.0
    assert (failures.failing(), failures.count()) == ([], FailureCount(0, None))
    database.close()


def test_the_oldest_failures_of_no_job_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.projects.failures._MOST_KEPT", 2)
    database = Database(url)
    failures = FailureStore(database)
    for job in (0, 1):
        for task in range(4):
            failures.add([(task, "r")], job)
    assert failures.task_ids(0) == {2, 3}
    assert failures.task_ids(1) == {0, 1, 2, 3}, "so that the job does not predict them again"
    assert [each.task for each in failures.of_job(1, limit=2)] == [3, 2]
    assert failures.of_job(2) == []
    database.close()
