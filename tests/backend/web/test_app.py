"""The application that `create_app` makes."""

from __future__ import annotations

import json

import pytest
from flask.testing import FlaskClient

from backend import create_app
from backend.inference.engine import Engine
from backend.jobs.worker import Worker
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import colour_engine


def test_health_and_the_root_are_up(client: FlaskClient) -> None:
    for path in ("/health", "/"):
        response = client.get(path)
        assert response.status_code == 200
        assert json.loads(response.data)["status"] == "UP"


def test_only_an_engine_of_its_own_is_started_and_the_worker_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, started = colour_engine(), []
    monkeypatch.setattr(Engine, "start", lambda _: started.append("engine"))
    monkeypatch.setattr(Worker, "start", lambda _: started.append("worker"))
    create_app(Settings(), given)
    assert started == []
    create_app(Settings(model="demo"))
    assert started == ["engine", "worker"]
