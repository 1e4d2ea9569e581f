"""Forecasts are made of what was read and of what a stand-in for Label Studio has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.forecast.forecast_store import ForecastStore
from backend.feedback.read_annotation import ReadAnnotation
from backend.jobs.forecaster import Forecaster
from backend.label_studio.client import LabelStudioClient
from tests.backend.conftest import Clock
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, LocalServer

OURS = "demo clearclip 12345678"


@pytest.fixture
def studio() -> FakeStudio:
    """250 tasks with predictions, half of which are annotated."""
    studio = FakeStudio(brush_config("red"), {n: {"image": "a.png"} for n in range(1, 251)})
    for task in studio.tasks:
        studio.add(task, OURS)
        studio.predictions[-1]["score"] = task % 2 * 0.5
    studio.annotated = set(range(1, 126))
    return studio


@pytest.fixture
def server(studio: FakeStudio) -> Iterator[LocalServer]:
    with studio.served() as server:
        yield server


def read(annotations: AnnotationStore, count: int, kind: str = "compared", first: int = 1) -> None:
    for n in range(first, first + count):
        annotations.mark(7, [n])
        (pending,) = annotations.lease(1)
        seconds = 90.0 if n % 2 else 30.0
        annotations.complete(
            pending,
            ReadAnnotation(n, 7, n, kind, OURS, 1, seconds, 1e6 + 8640 * n),  # type: ignore[arg-type]
        )


def made(server: LocalServer, clock: Clock) -> Forecaster:
    database = Database("sqlite://", clock)
    client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)
    return Forecaster(AnnotationStore(database, "me"), ForecastStore(database), client, clock)


def test_what_is_left_is_foretold_from_the_scores_of_the_tasks(
    server: LocalServer, studio: FakeStudio, clock: Clock
) -> None:
    forecaster = made(server, clock)
    read(forecaster.annotations, 100)
    for task in [*studio.tasks]:
        if task > 125 and task % 2:
            del studio.tasks[task]  # those that take 90 s
    forecaster.check()
    found = forecaster.forecasts.read(7)
    assert found is not None
    assert (found.tasks_left, found.n_with, found.n_without) == (63, 100, 0)
    assert found.with_prelabels is not None
    assert found.with_prelabels.expected == pytest.approx(63 * 30 / 3600, rel=0.05)
    assert found.without_prelabels is None


def test_nothing_is_asked_where_nothing_has_changed(
    server: LocalServer, studio: FakeStudio, clock: Clock
) -> None:
    asked: list[str] = []

    def note(request: object) -> None:
        asked.append("")

    studio.fault = note  # type: ignore[assignment]
    forecaster = made(server, clock)
    assert not forecaster.check()
    assert asked == [], "no annotation has been read"
    read(forecaster.annotations, 3)
    clock.now += 61
    forecaster.check()
    first = len(asked)
    assert first > 0
    clock.now += 3600
    forecaster.check()
    assert len(asked) == first
    read(forecaster.annotations, 1, "scratch", first=50)
    clock.now += 61
    forecaster.check()
    assert len(asked) > first
    found = forecaster.forecasts.read(7)
    assert found is not None
    assert (found.n_with, found.n_without) == (3, 1)


def test_a_project_that_is_gone_stops_no_other(
    server: LocalServer, studio: FakeStudio, clock: Clock
) -> None:
    forecaster = made(server, clock)
    read(forecaster.annotations, 1)
    forecaster.annotations.mark(6, [900])
    (pending,) = forecaster.annotations.lease(1, 6)
    gone = ReadAnnotation(900, 6, 900, "compared", OURS, 1, 9.0, 1e6)
    forecaster.annotations.complete(pending, gone)
    forecaster.check()
    assert forecaster.forecasts.read(6) is None
    assert forecaster.forecasts.read(7) is not None


def test_without_a_token_nothing_is_made(clock: Clock) -> None:
    database = Database("sqlite://", clock)
    forecaster = Forecaster(AnnotationStore(database, "me"), ForecastStore(database), None, clock)
    read(forecaster.annotations, 1)
    assert not forecaster.check()
    assert forecaster.forecasts.read(7) is None


def test_an_outage_is_told(server: LocalServer, studio: FakeStudio, clock: Clock) -> None:
    from backend.errors import StudioUnreachable

    forecaster = made(server, clock)
    read(forecaster.annotations, 1)
    studio.fault = lambda asked: Answer(503)
    with pytest.raises(StudioUnreachable):
        forecaster.check()
