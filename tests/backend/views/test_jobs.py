"""What the dashboard says of jobs and projects."""

from typing import Any

import pytest

from backend.views.jobs import JobCounts, JobFold, JobNotes, served_projects
from backend.views.text import plain


def job(**more: Any) -> str:
    counts = {"kind": "project", "over": True, "total": 10, "done": 0, "skipped": 0, "failed": 0}
    return " · ".join(each.text for each in JobCounts(**counts | more).facts)


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


def step(jobs: tuple[dict[str, Any], ...] = (), **figures: Any) -> str:
    known = {"project": 7, "tasks": 9, "annotations": 0, "failing": 0}
    (served,) = served_projects([known | figures], jobs)
    return served.step


def test_the_first_pictures_come_before_the_next_ones() -> None:
    assert step() == "Correct the first pictures"
    assert step(annotations=3) == "Correct the next pictures"


def test_a_project_without_tasks_needs_pictures() -> None:
    assert step(tasks=0) == "Import pictures"


def test_a_project_that_is_annotated_gives_a_data_set() -> None:
    assert step(annotations=9) == "Make a data set"


def test_while_a_job_predicts_nobody_needs_to_do_anything() -> None:
    running = {"project": 7, "state": "running", "kind": "project"}
    assert step((running,)) == "Its tasks are being predicted"
    assert step((running | {"project": 8},)) == "Correct the first pictures"
    assert step((running | {"kind": "withdrawal"},)) == "Correct the first pictures"


def test_several_annotations_a_task_fill_the_bar_and_no_more() -> None:
    (served,) = served_projects([{"project": 7, "tasks": 9, "annotations": 30, "failing": 2}], ())
    assert (served.share, served.failing) == (1.0, "2 without a prediction")
    assert served.progress == "9 tasks, 30 annotations"


def test_a_job_that_can_be_resumed_is_not_folded() -> None:
    failed, done = ({"over": True, "can_resume": each} for each in (True, False))
    fold = JobFold.of([failed, done])
    assert (fold.shown, fold.folded) == ((failed,), (done,))


def notes(**more: Any) -> JobNotes:
    told = {"created": 0.0, "started": None, "version": "", "failures": [], "failed": 0}
    return JobNotes.of(told | more, lambda task: f"/tasks/{task}")


def test_failures_that_are_not_named_are_counted() -> None:
    assert notes(failures=[{}], failed=1).failures == ""
    assert notes(failures=[{}], failed=3).failures.startswith("the last 1 of 3 that failed;")


def test_a_withdrawal_names_what_it_keeps() -> None:
    assert not notes().kept
    assert plain(notes(kept=[4, 5]).kept).endswith("(the log says why): 4, 5.")
    assert plain(notes(kept=[*range(1003)]).kept).endswith(", 999, and 3 more.")
