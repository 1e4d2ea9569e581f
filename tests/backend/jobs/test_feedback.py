"""Annotations, found by the poll of a running backend and read from a stand-in for Label Studio."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from backend.feedback.annotation_store import AnnotationStore
from backend.jobs import change_poller
from tests.backend.fakes.colour_segmenter import data_url
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.fakes.report import rows_of
from tests.backend.fakes.waiting import wait_for
from tests.backend.feedback.test_annotation_reader import region
from tests.backend.jobs.served_backend import CONFIG, Backend


@pytest.fixture
def connected(
    make_backend: Callable[..., Backend], studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> Backend:
    """A running backend, connected to project 7."""
    monkeypatch.setattr(change_poller, "SETTLED_AFTER_S", 0.0)
    monkeypatch.setattr(change_poller, "_WAKE_AFTER_S", 0.0)
    studio.backends = [{"id": 1, "url": "http://here:9090", "created_at": "2001-09-09T01:46:40Z"}]
    backend = make_backend(
        model="demo", adapt_every=2, auto_prelabel="7", predict_deadline_s=30, poll_interval_s=600
    )
    version(backend)
    backend.worker.start()
    return backend


def version(backend: Backend) -> str:
    body = {"project": "7.1", "schema": CONFIG}
    return str(backend.client.post("/setup", json=body).get_json()["model_version"])


def wake(backend: Backend, project: int = 7) -> None:
    body = {"action": "ANNOTATION_CREATED", "project": {"id": project}}
    assert backend.client.post("/webhook", json=body).status_code == 200


def test_a_webhook_brings_the_next_poll_forward(connected: Backend, studio: FakeStudio) -> None:
    annotations = AnnotationStore(connected.store.database, "who looks")
    studio.annotate(8, [])
    wake(connected)
    wait_for(lambda: [read.task for read in rows_of(annotations)] == [8])
    studio.remove(next(iter(studio.annotations)))
    new = studio.create(studio.tasks[9])
    wake(connected)
    wait_for(lambda: rows_of(annotations) == [] and studio.stored() == {new: 1})


def test_many_annotations_at_once_make_one_version(connected: Backend, studio: FakeStudio) -> None:
    """Thirty, where two would do: no version is made while others are read."""
    for task in range(1, 31):
        noise = np.random.default_rng(task).integers(0, 256, (4, 8, 3), np.uint8)
        studio.tasks[task] = {"image": data_url(noise)}
        studio.annotate(task, [region("a", "red", 4)], 1e9)
    wake(connected)
    learned = "/projects/7/learning"
    wait_for(lambda: bool(connected.client.get(learned).get_json()["versions"]), 60)
    told = connected.client.get(learned).get_json()
    (only,) = told["versions"]
    assert (only["number"], only["annotations"], told["changed"]) == (1, 30, 0)
