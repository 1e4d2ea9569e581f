"""The tasks of a job: which ones come last, alone, or not at all."""

import pytest

from backend.database.leases import MOST_DEATHS
from backend.jobs.job_tasks import CHUNK, JobTasks
from backend.label_studio.task_filter import TaskFilter


def tasks(deaths: dict[int, int], *failed: int) -> JobTasks:
    return JobTasks(TaskFilter(), frozenset(failed), deaths)


def test_tasks_beside_one_death_are_predicted_together_in_chunks() -> None:
    groups = tasks(dict.fromkeys(range(1, CHUNK + 3), 1)).suspects()
    assert groups == [tuple(range(1, CHUNK + 1)), (CHUNK + 1, CHUNK + 2)]


def test_from_the_second_death_on_a_task_is_alone_and_the_deadliest_is_last() -> None:
    assert MOST_DEATHS > 2
    assert tasks({9: 2, 4: 1, 2: 2, 3: 1}).suspects() == [(3, 4), (2,), (9,)]


def test_one_at_which_the_process_dies_too_often_is_tried_no_more() -> None:
    job = tasks({1: MOST_DEATHS, 2: 1})
    assert (job.hopeless(), job.suspects()) == ([1], [(2,)])


@pytest.mark.parametrize("deaths", [1, MOST_DEATHS])
def test_one_that_has_failed_is_neither_tried_nor_failed_again(deaths: int) -> None:
    job = tasks({1: deaths}, 1)
    assert (job.hopeless(), job.suspects()) == ([], [])


def test_what_has_failed_or_was_there_at_a_death_does_not_come_first() -> None:
    assert tasks({1: 1, 2: 3}, 4).touched == {1, 2, 4}


def test_lacking_ones_are_asked_for_among_those_of_the_job() -> None:
    job = JobTasks(TaskFilter(ids=(3, 5)))
    assert job.lacking("v1") == TaskFilter(ids=(3, 5), without_version="v1")
