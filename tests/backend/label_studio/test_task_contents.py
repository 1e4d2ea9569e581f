"""Annotations of a task, with their regions."""

from __future__ import annotations

from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.label_studio import TOKEN, FakeStudio

REGION = {"id": "r", "type": "brushlabels"}


def test_regions_and_ground_truth_are_read() -> None:
    studio = FakeStudio("<View/>", {1: {"image": "/a.png"}})
    old = studio.add(1, "clip 1", result=[REGION])
    studio.annotate(1, [REGION], ground_truth=True, parent_prediction=old)
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=1)
        (annotation,) = client.annotations(1)
        assert (annotation.ground_truth, annotation.prediction) == (True, old)
        assert list(annotation.result) == [REGION]
        assert client.annotations(99) == []
