"""Predictions to be reviewed, and the verdicts on them."""

from pathlib import Path

import pytest

from backend.database.database import Database
from backend.review.verdicts import ReviewStore
from tests.backend.conftest import Clock
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import FakeStudio


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(brush_config("red"), {n: {"image": f"{n}.png"} for n in range(1, 9)})


@pytest.fixture
def reviews(tmp_path: Path, clock: Clock) -> ReviewStore:
    return ReviewStore(Database(f"sqlite:///{tmp_path}/own.db", clock), "me")
