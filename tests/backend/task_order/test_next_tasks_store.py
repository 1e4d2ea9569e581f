"""The last choice of a project is kept, on both databases."""

from __future__ import annotations

from dataclasses import replace

from backend.database.database import Database
from backend.task_order.next_tasks import NextTask, NextTasks
from backend.task_order.next_tasks_store import NextTasksStore

REPORT = NextTasks(
    *(3, (NextTask(9, "data:image/jpeg,a"), NextTask(4, "data:image/jpeg,b")), 40, 12, 10, 5, 1.5),
    left_out={8: "Gone."},
    left_out_count=2,
)


def test_the_last_choice_of_each_project_is_kept(url: str) -> None:
    store = NextTasksStore(Database(url, lambda: 1234.5))
    store.keep(7, REPORT)
    store.keep(8, replace(REPORT, asked=5))
    store.keep(7, replace(REPORT, asked=2, left_out={}, left_out_count=0))
    other = NextTasksStore(Database(url))
    last = other.last(7)
    assert last is not None
    assert last.finished == 1234.5
    assert last.report == replace(REPORT, asked=2, left_out={}, left_out_count=0)
    kept = other.last(8)
    assert kept is not None
    assert kept.report.tasks == REPORT.tasks
    assert other.last(9) is None
