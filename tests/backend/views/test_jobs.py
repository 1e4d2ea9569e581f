"""What the dashboard says of jobs and projects."""

from typing import Any

import pytest
from msgspec.structs import asdict, replace

from backend.database.database import Database
from backend.jobs.job_store import Job, JobStore
from backend.views.jobs import (
    Failure,
    JobDetail,
    JobFold,
    JobNotes,
    ProjectFigures,
    acted,
    served_projects,
)
from backend.views.text import plain


def view(**more: Any) -> JobDetail:
    """A job of project 7 that is over."""
    made = JobStore(Database("sqlite://")).start_job(7)
    return JobDetail(**asdict(made) | {"over": True, "total": 10} | more)


def job(**more: Any) -> str:
    return " · ".join(each.text for each in view(**more).facts)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"done": 6, "skipped": 4}, "6 predicted of 6 tasks · 4 had a prediction before"),
        ({"total": 1, "failed": 1}, "0 predicted of 1 task · 1 failed"),
        ({"total": None}, "Nothing predicted"),
        ({"total": None, "over": False}, "Nothing predicted yet"),
        ({"total": None, "done": 3}, "3 predicted"),
        (
            {"kind": "withdrawal", "total": 6, "done": 4, "skipped": 2},
            "4 of 6 predictions deleted · 2 kept",
        ),
        ({"kind": "withdrawal", "total": None, "done": 1}, "1 prediction deleted"),
    ],
)
def test_what_a_job_has_done(counts: dict[str, Any], told: str) -> None:
    assert job(**counts) == told


def step(*jobs: Job, **figures: Any) -> str:
    known = {"project": 7, "tasks": 9, "left": 9}
    (served,) = served_projects([ProjectFigures(**known | figures)], jobs, {})
    return served.step


def test_the_first_pictures_come_before_the_next_ones() -> None:
    assert step() == "Correct the first pictures"
    assert step(annotations=3) == "Correct the next pictures"


def test_a_project_without_tasks_needs_pictures() -> None:
    assert step(tasks=0) == "Import pictures"


def test_a_project_that_is_annotated_gives_a_data_set() -> None:
    assert step(annotations=9, left=0) == "Make a data set"


def test_tasks_that_need_a_second_person_are_still_to_be_corrected() -> None:
    assert step(annotations=9, left=9) == "Correct the next pictures"


def test_while_a_job_predicts_nobody_needs_to_do_anything() -> None:
    assert step(view(state="running")) == "Its tasks are being predicted"
    assert step(view(state="running", project=8)) == "Correct the first pictures"
    assert step(view(state="running", kind="withdrawal")) == "Correct the first pictures"


def test_the_bar_is_of_the_tasks_that_are_left_however_many_annotations_there_are() -> None:
    figures = ProjectFigures(project=7, tasks=9, left=6, annotations=30, failing=2)
    (served,) = served_projects([figures], (), {})
    assert (served.share, served.failing) == (pytest.approx(1 / 3), " · 2 without a prediction")
    assert served.progress == "9 tasks, 6 left, 30 annotations"


def test_tasks_that_nobody_has_counted_have_no_bar() -> None:
    figures = ProjectFigures(project=7, annotations=1)
    (served,) = served_projects([figures], (), {})
    assert (served.share, served.progress) == (None, "1 annotation")


def test_a_job_that_can_be_resumed_is_not_folded() -> None:
    failed, done = (view(can_resume=each) for each in (True, False))
    fold = JobFold.of([failed, done])
    assert (fold.shown, fold.folded, fold.head) == ((failed,), (done,), "1 job is over")


FAILURE = Failure(task=3, at=900.0, since=900.0, sentence="It is gone.")


def notes(**more: Any) -> JobNotes:
    return JobNotes.of(view(**more), lambda task: f"/tasks/{task}")


def test_failures_that_are_not_named_are_counted() -> None:
    assert notes(failures=(FAILURE,), failed=1).failures == ""
    assert notes(failures=(FAILURE,), failed=3).failures.startswith("the last 1 of 3 that failed;")


def test_a_withdrawal_names_what_it_keeps() -> None:
    assert not notes().kept
    assert plain(notes(kept=(4, 5)).kept).endswith("(the log says why): 4, 5.")
    assert plain(notes(kept=tuple(range(1003))).kept).endswith(", 999, and 3 more.")


@pytest.mark.parametrize(
    ("known", "what"),
    [
        ({}, "job 1: tasks without annotations"),
        ({"only": "all"}, "job 1: all tasks"),
        ({"kind": "late"}, "job 1: tasks that were not ready in time"),
        ({"kind": "withdrawal", "withdraws": 5}, "job 1: withdrawal of job 5"),
        (
            {"view": 3, "limit": 2000},
            "job 1: tasks without annotations, view 3, at most 2\u202f000",
        ),
    ],
)
def test_which_tasks_a_job_is_for(known: dict[str, Any], what: str) -> None:
    assert view(**known).what == what


def times(**more: Any) -> str:
    return " · ".join(each.text for each in view(**more).times)


def test_a_job_that_runs_says_when_it_ends() -> None:
    running = {"state": "running", "rate": 2.5, "eta_s": 100.0}
    assert times(**running) == "2.5 tasks/s · about 2 min left"
    assert times(**running | {"eta_s": None}) == ""


def test_a_job_that_is_over_says_how_long_it_took() -> None:
    assert times(finished=4e9, worked_s=100.0) == "just now, took 2 min"
    assert times(finished=4e9, worked_s=0.2) == "just now"


def test_predictions_of_a_withdrawal_cannot_be_withdrawn() -> None:
    assert view(done=3).can_withdraw
    assert not view(done=3, kind="withdrawal").can_withdraw
    assert not view(done=3, over=False).can_withdraw


def test_a_task_that_fails_again_says_since_when() -> None:
    assert FAILURE.first == ""
    assert replace(FAILURE, since=800.0).first.startswith(", first ")


def test_a_number_in_the_query_is_a_number() -> None:
    assert plain(acted("pause", "3", "/jobs")) == "Job 3 is paused."
    assert acted("pause", "3<b>", "/jobs") == acted("eat", "3", "/jobs") == ()
