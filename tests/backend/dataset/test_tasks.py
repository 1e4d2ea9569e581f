"""Tasks of a project, read through a stand-in for Label Studio's API."""

from __future__ import annotations

import pytest

from backend.dataset.tasks import ProjectTasks, TaskRecord
from backend.errors import BadRequest
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
    assert [each.prediction for each in read(server, False).values()] == [None, None]


def test_a_prediction_that_is_gone_by_then_makes_no_empty_picture(
    server: LocalServer, studio: FakeStudio
) -> None:
    def forget(asked: object) -> None:
        if "fields=all" in str(asked):
            studio.predictions = [each for each in studio.predictions if each["task"] != 1]

    studio.fault = forget
    assert read(server, True)[1].prediction is None


def test_tasks_are_asked_for_by_pages(server: LocalServer, studio: FakeStudio) -> None:
    for _ in range(40):
        studio.annotate(studio.create({"image": "/a.png"}), [REGION])
    asked = len(server.asked)
    found = read(server, False)
    assert sum(len(each.annotations) for each in found.values()) == 41
    assert len(server.asked) - asked <= 8


def test_one_that_is_too_large_is_a_problem_of_its_task(
    server: LocalServer, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.label_studio.connection._MOST_BYTES", 4000)
    studio.add(1, "clip 3", result=[REGION] * 200)
    with pytest.raises(BadRequest, match="sends more than"):
        read(server, True)
