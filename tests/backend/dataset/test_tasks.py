"""Tasks of a project, read through a stand-in for Label Studio's API."""

import pytest

from backend.dataset.tasks import ProjectTasks, TaskRecord
from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer

REGION = {"id": "r", "type": "brushlabels"}


@pytest.fixture
def studio() -> FakeStudio:
    """Task 1 has two predictions, and task 2 an annotation that began with its prediction."""
    studio = FakeStudio("<View/>", {})
    for _ in range(2):
        studio.create({"image": "/a.png"})
    studio.add(1, "clip 1", result=[REGION, REGION])
    studio.add(1, "clip 2", result=[REGION])
    studio.annotate(2, [REGION], parent_prediction=studio.add(2, "clip 1", result=[REGION]))
    return studio


def read(server: LocalServer, with_predictions: bool) -> dict[int, TaskRecord]:
    client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)
    tasks = ProjectTasks(client, 7, None, with_predictions)
    return {each.id: each.read() for each in tasks.references()}


def test_the_newest_prediction_counts_where_nobody_has_annotated(server: LocalServer) -> None:
    first, second = read(server, True).values()
    assert (first.prediction, first.annotations) == (("clip 2", [REGION]), ())
    assert (second.prediction, second.versions) == (None, {3: "clip 1"})
    assert [each.prediction for each in second.annotations] == [3]
    assert list(read(server, False)) == [2]


def test_a_prediction_gone_by_then_is_none(server: LocalServer, studio: FakeStudio) -> None:
    def forget(asked: object) -> None:
        if "fields=all" in str(asked):
            studio.predictions = [each for each in studio.predictions if each["task"] != 1]

    studio.fault = forget
    assert read(server, True)[1].prediction is None


@pytest.mark.parametrize("view", [None, 3])
def test_only_annotated_tasks_are_asked_for_and_by_pages(
    server: LocalServer, studio: FakeStudio, view: int | None
) -> None:
    for _ in range(40):
        studio.annotate(studio.create({"image": "/a.png"}), [REGION])
    annotated = {each["task"] for each in studio.annotations.values()}
    studio.tasks |= {task: {"image": "/a.png"} for task in range(1000, 3000)}
    studio.annotate(1000, [REGION], was_cancelled=True)
    studio.views[3] = [*sorted(annotated, reverse=True), 1000, 1001]
    asked = len(server.asked)
    tasks = ProjectTasks(LabelStudioClient(server.url, TOKEN, retry_for_s=0), 7, view)
    found = {each.id: each.read() for each in tasks.references()}
    assert list(found) == sorted(annotated)
    assert sum(len(each.annotations) for each in found.values()) == 41
    assert tasks.unread == (2 if view else 2001)
    assert len(server.asked) - asked <= 6
