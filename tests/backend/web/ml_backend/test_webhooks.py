"""What follows from a webhook of Label Studio."""

from __future__ import annotations

import json

import pytest
from flask.testing import FlaskClient

from backend.database.database import Database
from backend.jobs.job_store import JobStore
from backend.label_studio.requests import TasksCreated
from backend.settings import Settings
from backend.web.ml_backend.webhooks import auto_prelabel
from tests.backend.fakes.colour_segmenter import (
    brush_config,
)
from tests.backend.fakes.label_studio import TOKEN
from tests.backend.web.requests_to_app import make_app


def test_webhooks_of_no_concern_are_accepted(client: FlaskClient) -> None:
    created = {"action": "TASKS_CREATED", "project": {"id": 7}, "tasks": [{"id": 1}]}
    for body in ({"action": "ANNOTATION_CREATED"}, {}, created):
        response = client.post("/webhook", json=body)
        assert response.status_code == 200
        assert json.loads(response.data) == {"status": "ignored"}
    for garbage in (b"", b"[", b"null"):
        assert client.post("/webhook", data=garbage).status_code == 200


@pytest.mark.parametrize(
    ("settings", "config", "queued"),
    [
        ({"auto_prelabel": "7,12"}, "", True),
        ({"auto_prelabel": "all"}, "", True),
        ({"auto_prelabel": "12"}, "", False),
        ({}, brush_config("red"), False),
        ({}, brush_config("red", attributes='prelabel="auto"'), True),
        ({"auto_prelabel": "12"}, brush_config("red", attributes='prelabel="auto"'), True),
    ],
)
def test_new_tasks_are_queued_where_their_project_has_that_switched_on(
    settings: dict[str, str], config: str, queued: bool
) -> None:
    studio = {"label_studio_url": "http://127.0.0.1:9", "label_studio_api_key": "a" * 40}
    client = make_app(**studio, **settings).test_client()
    project = {"id": 7, "label_config": config}
    for task in (3, 4):
        body = {"action": "TASKS_CREATED", "project": project, "tasks": [{"id": task}]}
        answer = client.post("/webhook", json=body)
        assert answer.get_json()["status"] == ("queued" if queued else "ignored")
    store = JobStore(Database.from_settings(Settings()))
    listed = [(job.project, store.task_ids(job.id)) for job in store.list_jobs()]
    assert listed == ([(7, (3, 4))] if queued else [])


def test_without_a_token_new_tasks_cannot_be_queued() -> None:
    body = {"action": "TASKS_CREATED", "project": {"id": 7}, "tasks": [{"id": 1}]}
    client = make_app(auto_prelabel="all").test_client()
    assert client.post("/webhook", json=body).get_json() == {"status": "ignored"}


def test_a_label_config_that_cannot_be_drawn_queues_nothing() -> None:
    settings = Settings(label_studio_url="http://studio", label_studio_api_key=TOKEN)  # type: ignore[arg-type]
    store = JobStore(Database("sqlite://"))
    assert auto_prelabel(store, settings, TasksCreated(7, (1,))) is None
    assert auto_prelabel(store, settings, TasksCreated(7, (1,), "<View/>")) is None
    assert store.list_jobs() == []
