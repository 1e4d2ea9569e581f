"""`clearclip-backend hours-left` as a person uses it, against a stand-in for Label Studio."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy.exc import OperationalError

from backend.cli.main import main
from backend.database.database import Database
from backend.feedback.forecast.forecast_store import ForecastStore
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer

OURS = "demo clearclip 12345678"


@pytest.fixture
def studio() -> FakeStudio:
    """150 tasks, 30 of which were annotated, in 60 s each, with a prediction."""
    studio = FakeStudio(brush_config("red"), {n: {"image": "a.png"} for n in range(1, 151)})
    for task in range(1, 31):
        prediction = studio.add(task, OURS)
        studio.annotate(
            task, [], created=1e9 + 8640 * task, lead_time=60.0, parent_prediction=prediction
        )
    return studio


@pytest.fixture
def server(studio: FakeStudio) -> Iterator[LocalServer]:
    with studio.served() as server:
        yield server


def run(server: LocalServer, *arguments: str) -> Result:
    reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
    return CliRunner().invoke(main, ["hours-left", "--project", "7", *reach, *arguments])


def test_the_hours_are_printed_written_and_kept_for_the_page(
    server: LocalServer, tmp_path: Path
) -> None:
    out = tmp_path / "hours.json"
    done = run(server, "--backfill", "--json", str(out))
    assert done.exit_code == 0, done.output
    told = json.loads(out.read_text())
    assert (told["tasks_left"], told["annotations_with"]) == (120, 30)
    assert told["with_prelabels"]["hours"] == pytest.approx(2, rel=0.1)
    assert told["without_prelabels"] is None
    said = " ".join(done.output.split())
    assert "120 tasks without an annotation" in said
    assert "without prelabels not known" in said
    assert "10 annotations that began from nothing; so far there are 0" in said
    kept = ForecastStore(Database.from_settings(Settings())).read(7)
    assert kept is not None
    assert kept.to_json() == told


def test_the_hours_are_told_before_a_database_that_has_gone_away_fails(
    server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("UPDATE", {}, Exception("it is away"))

    monkeypatch.setattr(ForecastStore, "keep", fail)
    out = tmp_path / "hours.json"
    done = run(server, "--backfill", "--json", str(out))
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert "120 tasks without an annotation" in said
    assert "it is away" in said
    assert json.loads(out.read_text())["tasks_left"] == 120


def test_too_few_annotations_say_how_many_are_needed(
    server: LocalServer, studio: FakeStudio
) -> None:
    for annotation in [*studio.annotations][5:]:
        studio.remove(annotation)
    done = run(server, "--backfill")
    assert done.exit_code == 0
    assert "known from 20 annotations on" in " ".join(done.output.split())


def test_a_token_is_asked_for() -> None:
    done = CliRunner().invoke(main, ["hours-left", "--project", "7"])
    assert done.exit_code == 1
    assert "Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY: tasks are counted" in done.output
