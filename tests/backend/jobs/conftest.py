"""Fixtures for tests of a backend with its background threads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backend import create_app
from backend.database.database import Database
from backend.inference.engine import Engine
from backend.jobs import change_poller, worker
from backend.jobs import prelabeler as prelabel
from backend.jobs.job_store import JobStore
from backend.jobs.worker import Worker
from backend.label_studio.label_config_parser import parse_label_config
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import (
    ColourSegmenter,
    brush_config,
    colour_engine,
    data_url,
    flag,
)
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_POLL_S", 0.02)
    monkeypatch.setattr(worker, "_RETRY_AFTER_S", 0.1)
    monkeypatch.setattr(prelabel, "_CLOSING_PAUSE_S", 0.05)
    monkeypatch.setattr(prelabel, "_POLL_S", 0.05)
    monkeypatch.setattr(change_poller, "SETTLED_AFTER_S", 0.0)
    monkeypatch.setattr(change_poller, "_WAKE_AFTER_S", 0.0)


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(CONFIG, {i: {"image": picture(i)} for i in range(1, 41)})


@pytest.fixture
def make_backend(server: LocalServer, tmp_path: Path, short_pauses: None) -> "Iterator[Make]":
    made = []

    def make(**more: Any) -> Backend:
        reach = {"label_studio_url": server.url, "label_studio_api_key": TOKEN}
        url = f"sqlite:///{tmp_path}/shared.db"
        settings = Settings(**(reach | {"database_url": url, "predict_deadline_s": 0.5} | more))
        segmenter = ColourSegmenter()
        engine = colour_engine(segmenter)
        app = create_app(settings, engine)
        backend = Backend(
            app.test_client(), app.extensions["worker"], JobStore(Database(url)), segmenter, engine
        )
        made.append(backend)
        return backend

    yield make
    for backend in made:
        backend.segmenter.gate.set()
        backend.worker.stop()
        backend.engine.stop()


CONFIG = brush_config("red")


@dataclass
class Backend:
    client: Any
    worker: Worker
    store: JobStore
    segmenter: ColourSegmenter
    engine: Engine

    def predict(self, *ids: int, config: str = CONFIG) -> list[Any]:
        tasks = [{"id": i, "project": 7, "data": {"image": picture(i)}} for i in ids]
        body = {"tasks": tasks, "label_config": config, "project": "7.1"}
        results: list[Any] = self.client.post("/predict", json=body).get_json()["results"]
        return results


Make = Callable[..., Backend]


def picture(number: int) -> str:
    return data_url(flag("red", "blue", size_hw=(4, 8 + number)))


def version() -> str:
    versions = Predictor(colour_engine(), lambda *_: flag("red"), Settings()).versions
    return versions.current(parse_label_config(CONFIG, None))
