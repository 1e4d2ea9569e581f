"""Tasks of a project, read through a stand-in for Label Studio's API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.dataset.tasks import ProjectTasks
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
    began = studio.add(2, "clip 1", result=[REGION])
    studio.annotate(2, [REGION], parent_prediction=began)
    return studio


@pytest.fixture
def server(studio: FakeStudio) -> Iterator[LocalServer]:
    with studio.served() as server:
        yield server


def read(server: LocalServer, with_predictions: bool) -> dict[int, list[tuple[str, int]]]:
    """Task -> version of each prediction, and how many regions of it were read."""
    client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)
    records = [each.read() for each in ProjectTasks(client, 7, None, with_predictions).references()]
    return {
        int(record.task.id or 0): [(p.version, len(p.result)) for p in record.predictions]
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
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.label_studio.connection._MOST_REGION_BYTES", 100)
    with pytest.raises(BadRequest, match="MB of JSON"):
        read(server, True)
