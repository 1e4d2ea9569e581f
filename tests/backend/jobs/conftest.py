"""Fixtures for tests of a backend with its background threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend import create_app
from backend.database.database import Database
from backend.jobs import prelabeler as prelabel
from backend.jobs import worker
from backend.jobs.job_store import JobStore
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import ColourSegmenter, colour_engine
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer
from tests.backend.jobs.served_backend import CONFIG, Backend, picture


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_POLL_S", 0.02)
    monkeypatch.setattr(worker, "_RETRY_AFTER_S", 0.1)
    monkeypatch.setattr(prelabel, "_CLOSING_PAUSE_S", 0.05)
    monkeypatch.setattr(prelabel, "_POLL_S", 0.05)


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(CONFIG, {i: {"image": picture(i)} for i in range(1, 41)})


@pytest.fixture
def make_backend(
    server: LocalServer, tmp_path: Path, short_pauses: None
) -> Iterator[Callable[..., Backend]]:
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
