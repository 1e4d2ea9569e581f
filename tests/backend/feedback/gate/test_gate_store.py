"""The tasks that a gate lists, among many annotations."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import insert

from backend.feedback.annotation_table import ANNOTATIONS
from backend.feedback.gate.gate_store import FoundTask, GateStore
from tests.backend.fakes.sqlite_steps import CountedDatabase
from tests.backend.feedback.test_annotation_store import read_row

VERSION = "v"
LISTED = 20


def test_each_listed_task_takes_as_long_however_many_annotations_there_are(tmp_path: Path) -> None:
    """SQLite could read all annotations of the project for each task that is listed."""
    database = CountedDatabase(tmp_path)
    store = GateStore(database)
    found = [FoundTask(task, {"car": 0.9}, is_audited=False) for task in range(1, LISTED + 1)]
    store.begin_finding(7, VERSION)
    store.add_tasks(7, VERSION, found, lambda scores: True)
    store.finish_finding(7, VERSION)
    steps = []
    for first, count in ((0, 100), (5_000, 4_900)):
        rows = [read_row(first + number) for number in range(1, count + 1)]
        with database.write() as connection:
            connection.execute(insert(ANNOTATIONS), rows)
        steps.append(database.steps(lambda: store.tasks(7, VERSION, "listed")))
        assert store.tasks(7, VERSION, "listed") == list(range(1, LISTED + 1))
    database.close()
    assert steps[1] <= 2 * steps[0] + 100
