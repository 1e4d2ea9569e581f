"""A backend with the demo model, and pages beside a stand-in for Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from backend.services import Services
from backend.settings import Settings
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.runs.scene_project import CONFIG
from tests.backend.web.browser import Dashboard

MODEL: Final[dict[str, Any]] = {
    "model": "demo",
    "device": "cpu",
    "precision": "fp32",
    "short_side_px": 224,
}


@pytest.fixture(scope="package")
def services() -> Iterator[Services]:
    made = Services(Settings(**MODEL))
    with made.engine:
        yield made


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(CONFIG, {3: {}, 4: {}})


@pytest.fixture
def dashboard(studio: FakeStudio) -> Iterator[Dashboard]:
    with studio.served() as server:
        yield Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
