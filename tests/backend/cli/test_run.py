"""`clearclip-backend run` as a person uses it, on drawn scenes in a stand-in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy.exc import OperationalError

from backend.cli.main import main
from backend.database.database import Database
from backend.label_studio.client import LabelStudioClient
from backend.runs.label_errors import LABEL_ERRORS
from backend.runs.run_store import RunStore
from backend.settings import Settings
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.runs.test_label_errors import exchange
from tests.backend.wording.scene_project import MODEL, painted, scene_studio, scenes


def run(studio: FakeStudio, *arguments: str, answer: str = "") -> Result:
    """What a command says about project 7 of a studio."""
    with studio.served() as server:
        reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
        return CliRunner().invoke(main, [*arguments, "--project", "7", *reach], input=answer)


def test_label_errors_are_named_kept_for_the_page_and_shown_as_a_view(tmp_path: Path) -> None:
    studio, out = scene_studio(annotated=4), tmp_path / "out.json"
    wrong = exchange(studio, 2, "sky", "house")
    studio.annotate(1, painted(scenes()[0]), completed_by=2)  # a second person's
    command = ("label-errors", *MODEL, f"--json={out}", "--view")
    refused = run(studio, *command, answer="n\n")
    assert refused.exit_code == 1
    assert not studio.tabs
    made = run(studio, "run", *command, answer="y\n")
    assert made.exit_code == 0, made.output
    said = " ".join(made.output.split())
    assert "5 annotations of 4 pictures in" in said
    assert f"1 2 {wrong} Painted “house”, but it looks like “sky”." in said
    assert len(studio.tabs) == 1
    told = LABEL_ERRORS.read_report(out.read_text())
    assert told.suspicions[0].annotation == wrong
    assert (told.reviewed, told.annotations, told.pictures) == (5, 5, 4)
    kept = RunStore(Database.from_settings(Settings())).last(LABEL_ERRORS, 7)
    assert kept is not None
    assert kept[1] == told


def test_findings_are_told_before_a_database_that_has_gone_away_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("it is away"))

    monkeypatch.setattr(RunStore, "add_done", fail)
    studio, out = scene_studio(annotated=4), tmp_path / "out.json"
    wrong = exchange(studio, 2, "sky", "house")
    made = run(studio, "label-errors", *MODEL, f"--json={out}")
    assert made.exit_code == 1
    said = " ".join(made.output.split())
    assert f"1 2 {wrong} Painted “house”, but it looks like “sky”." in said
    assert "it is away" in said
    assert json.loads(out.read_text())["suspicions"][0]["annotation"] == wrong


@pytest.mark.parametrize("command", ["label-errors"])
def test_a_task_is_tried_for_ten_minutes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def made(settings: object, *, retry_for_s: float, **_: Any) -> None:
        asked.append(retry_for_s)

    monkeypatch.setattr(LabelStudioClient, "from_settings", made)
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "token")
    CliRunner().invoke(main, [command, "--project=7"])
    assert asked == [600.0]
