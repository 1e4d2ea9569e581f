"""The scores that tasks are sorted by, from a stand-in for Label Studio's API."""

from __future__ import annotations

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import TaskFilter
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio


def test_all_pages_of_tasks_with_a_score_are_read() -> None:
    studio = FakeStudio(brush_config("red"), {n: {"image": "a.png"} for n in range(1, 252)})
    for task in [*studio.tasks]:
        if task != 120:
            studio.add(task, "v1")
    studio.add(7, "v2")
    studio.predictions[-1]["score"] = 1.0
    studio.annotated = {250}
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)
        scores = dict(client.scores.read(7, TaskFilter()))
        open_ = dict(client.scores.read(7, TaskFilter(unlabeled=True)))
    assert [*scores] == [n for n in range(1, 252) if n != 120]
    assert (scores[7], scores[8]) == (0.75, 0.5)
    assert scores.keys() - open_.keys() == {250}
