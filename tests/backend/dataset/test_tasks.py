"""Tasks of exported files, and of a project read through a stand-in for Label Studio's API."""

from __future__ import annotations

import pytest

from backend.dataset.tasks import ProjectTasks, read_exported_task
from backend.errors import BadRequest, DatasetError
from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer


def test_people_and_predictions_are_read_in_every_form() -> None:
    began = {"id": 8, "model_version": "clip 8", "result": []}
    read = read_exported_task(
        {
            "id": 3,
            "data": {"image": "a"},
            "annotations": [
                {"id": 1, "completed_by": {"id": 4, "email": "x"}, "prediction": began},
                {"id": 2, "completed_by": 5, "parent_prediction": 9, "ground_truth": True},
                {"id": 6, "was_cancelled": True, "updated_at": "2026-01-01T00:00:10.5Z"},
            ],
            "predictions": [7, {"id": 9, "model_version": "clip 9"}, {"result": [{}]}],
        }
    )
    first, second, third = read.annotations
    assert (first.annotator, read.version_of(first.prediction)) == (4, "clip 8")
    assert (second.annotator, read.version_of(second.prediction)) == (5, "clip 9")
    assert second.ground_truth
    assert third.skipped
    assert third.updated == 1767225610.5
    assert [each.id for each in read.predictions] == [0, 8, 9]


@pytest.mark.parametrize(
    "raw",
    [7, {"id": 1, "image": "/a.png"}, {"id": 1, "data": {}}, {"data": {}, "annotations": []}],
)
def test_what_is_no_exported_task_is_refused(raw: object) -> None:
    with pytest.raises(DatasetError, match="JSON-MIN has no masks of use"):
        read_exported_task(raw)
    read_exported_task({"id": 1, "data": {}, "annotations": [], "predictions": None})


REGION = {"id": "r", "type": "brushlabels"}


@pytest.fixture
def studio() -> FakeStudio:
    """Task 1 has two predictions, and task 2 an annotation that began with its prediction."""
    studio = FakeStudio("<View/>", {})
    for _ in range(2):
        studio.create({"image": "/a.png"})
    studio.add(1, "clip 1", result=[REGION, REGION])
    studio.add(1, "clip 2", result=[REGION])
    began = studio.add(2, "clip 1", result=[REGION])
    studio.annotate(2, [REGION], parent_prediction=began)
    return studio


def read(server: LocalServer, with_predictions: bool) -> dict[int, list[tuple[str, int]]]:
    """Task -> version of each prediction, and how many regions of it were read."""
    client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)
    records = [each.read() for each in ProjectTasks(client, 7, None, with_predictions).references()]
    return {
        int(record.task.id or 0): [(p.version, len(p.regions)) for p in record.predictions]
        for record in records
        if record is not None
    }


def test_regions_are_read_of_the_prediction_that_counts_alone(server: LocalServer) -> None:
    assert read(server, True) == {1: [("clip 1", 0), ("clip 2", 1)], 2: [("clip 1", 0)]}
    assert read(server, False) == {1: [], 2: [("clip 1", 0)]}


def test_a_prediction_that_is_gone_by_then_makes_no_empty_picture(
    server: LocalServer, studio: FakeStudio
) -> None:
    def forget(asked: object) -> None:
        if "/api/predictions/2" in str(asked):
            studio.predictions = [each for each in studio.predictions if each["id"] != 2]

    studio.fault = forget
    assert read(server, True)[1] == []


def test_one_that_is_too_large_is_a_problem_of_its_task(
    server: LocalServer, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.label_studio.connection._MOST_BYTES", 4000)
    studio.add(1, "clip 3", result=[REGION] * 200)
    with pytest.raises(BadRequest, match="sends more than"):
        read(server, True)
