"""Annotations, read in the background from a stand-in for Label Studio's API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backend.feedback.annotation_store import AnnotationStore
from tests.backend.fakes.colour_segmenter import data_url
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.feedback.test_annotation_reader import region
from tests.backend.jobs.served_backend import CONFIG, Backend, wait_for


def test_an_annotation_of_the_webhook_is_read(
    make_backend: Callable[..., Backend], studio: FakeStudio
) -> None:
    backend = make_backend()
    made = studio.annotate(8, [])
    backend.worker.start()
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 7}, "annotation": {"id": made["id"]}}
    assert backend.client.post("/webhook", json=body).get_json() == {"status": "noted"}
    annotations = AnnotationStore(backend.store.database, "who looks")
    wait_for(lambda: [read.task for read in annotations.read(7)] == [8])
    studio.annotations.clear()
    body = {"action": "ANNOTATIONS_DELETED", "project": {"id": 7}, "annotations": [made]}
    assert backend.client.post("/webhook", json=body).get_json() == {"status": "noted"}
    wait_for(lambda: annotations.read(7) == [])


@pytest.mark.parametrize("is_told", [True, False])
def test_annotations_teach_and_predictions_follow(
    make_backend: Callable[..., Backend], studio: FakeStudio, is_told: bool
) -> None:
    """From the webhook to the next prediction; and back, once they are deleted, told of or not."""
    backend = make_backend(model="demo", adapt_every=2, predict_deadline_s=30)
    before = backend.predict(1)

    def tell(action: str, **told: Any) -> None:
        message = {"action": action, "project": {"id": 7}, **told}
        backend.client.post("/webhook", json=message)

    def version() -> str:
        body = {"project": "7.1", "schema": CONFIG}
        return str(backend.client.post("/setup", json=body).get_json()["model_version"])

    backend.worker.start()
    made = []
    for task in (1, 2):
        noise = np.random.default_rng(task).integers(0, 256, (4, 8, 3), np.uint8)
        studio.tasks[task] = {"image": data_url(noise)}
        result = [region("a", "red", 4)]
        made.append(studio.annotate(task, result, 1e9))
        tell("ANNOTATION_CREATED", annotation={"id": made[-1]["id"]})
    learned = "/projects/7/learning"
    wait_for(lambda: bool(backend.client.get(learned).get_json()["versions"]))
    (newest,) = backend.client.get(learned).get_json()["versions"]
    assert newest["annotations"] == 2
    assert (version() != before[0]["model_version"]) == newest["better"]
    for annotation in made:
        del studio.annotations[annotation["id"]]
    if is_told:
        tell("ANNOTATIONS_DELETED", annotations=[{"id": each["id"]} for each in made])
    else:
        assert backend.client.post(f"{learned}/step").status_code == 200
    wait_for(lambda: backend.client.get(learned).get_json()["annotations"] == 0)
    assert version() == before[0]["model_version"]
    assert backend.predict(1) == before
