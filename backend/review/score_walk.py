"""Read the scores of predictions that this backend has not stored, or not since it keeps scores.

Label Studio gives the score of a prediction together with its masks alone: some ten kB for each. So
only what has no score here is read, of projects whose review page was opened, once.
"""

from contextlib import suppress
from typing import Final

from backend.errors import BadRequest, StudioRefused
from backend.label_studio.client import LabelStudioClient, TasksTogether
from backend.label_studio.records import TaskContents
from backend.label_studio.task_filter import TaskFilter
from backend.projects.scores import ScoreStore

#: Tasks between two notes of how far a walk has come.
_TASKS: Final = 100


def read_scores(scores: ScoreStore, client: LabelStudioClient) -> bool:
    """Read the scores that the next tasks of a walk lack; return whether there was a walk.

    It goes on where a process has ended: what was read twice is kept once.
    """
    found = scores.open_walk()
    if found is None:
        return False
    project, walk = found

    waits = TaskFilter(labeled=False, skipped=False, predicted=True, after_id=walk.cursor)
    try:
        tasks = [int(task.id or 0) for task in client.tasks(project, waits, _TASKS)]
        lacking = sorted({*tasks} - scores.known(project, tasks))
        _read(scores, client, project, lacking)
    except StudioRefused:  # the project is gone, or not this token's
        scores.end_walk(project)
        return True

    if tasks:
        scores.go_on(project, tasks[-1])
    if len(tasks) < _TASKS:
        scores.end_walk(project)
    return True


def _read(scores: ScoreStore, client: LabelStudioClient, project: int, tasks: list[int]) -> None:
    """Keep the scores of some tasks; one that Label Studio cannot serve has none."""
    together = TasksTogether(client, project, tasks, TaskContents)
    by_version: dict[str, dict[int, float]] = {}
    for task in tasks:
        with suppress(BadRequest):
            there = together.take(task)
            if there is not None and there.predictions:
                newest = max(there.predictions, key=lambda each: each.id)
                of_version = by_version.setdefault(newest.version, {})
                of_version[task] = newest.score or 0.0

    for version, found in by_version.items():
        scores.keep(project, version, found)
