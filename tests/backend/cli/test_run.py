"""`clearclip-backend run` as a person uses it, on drawn scenes in a stand-in."""

import json
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest
from click.testing import CliRunner, Result
from sqlalchemy.exc import OperationalError

from backend.cli.main import main
from backend.database.database import Database
from backend.runs.agreement import AGREEMENT
from backend.runs.label_errors import LABEL_ERRORS
from backend.runs.models import MODELS
from backend.runs.run_store import RunStore
from backend.settings import Settings
from backend.views.runs import model_rows
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.runs.scene_project import MODEL, painted, scene_studio, scenes
from tests.backend.runs.shared_project import brushed, shared_studio
from tests.backend.runs.test_label_errors import exchange


def run(studio: FakeStudio, *arguments: str, answer: str = "") -> Result:
    with studio.served() as server:
        reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
        return CliRunner().invoke(main, ["run", *arguments, "--project", "7", *reach], input=answer)


def test_label_errors_are_named_kept_for_the_page_and_shown_as_a_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.runs.label_errors.least_score", lambda pictures: 1.0)
    studio, out = scene_studio(annotated=4), tmp_path / "out.json"
    wrong = exchange(studio, 2, "sky", "house")
    studio.annotate(1, painted(scenes()[0]), completed_by=2)  # a second person's
    command = ("label-errors", *MODEL, f"--json={out}", "--make-view")
    refused = run(studio, *command, answer="n\n")
    assert refused.exit_code == 1
    assert not studio.tabs
    made = run(studio, *command, answer="y\n")
    assert made.exit_code == 0, made.output
    said = " ".join(made.output.split())
    assert "5 annotations of 4 pictures; scores" in said
    assert f"2 {wrong} Painted “house”, but it looks like “sky”." in said
    assert len(studio.tabs) == 1
    told = msgspec.json.decode(out.read_bytes(), type=LABEL_ERRORS.report)
    assert told.suspicions[0].annotation == wrong
    assert (told.annotations, told.pictures) == (5, 4)
    kept = RunStore(Database.from_settings(Settings())).last(LABEL_ERRORS, 7)
    assert kept is not None
    assert kept[1] == told


def test_findings_are_told_before_a_database_that_has_gone_away_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Mock(side_effect=OperationalError("INSERT", {}, Exception("it is away")))
    monkeypatch.setattr(RunStore, "add_done", away)
    monkeypatch.setattr("backend.runs.label_errors.least_score", lambda pictures: 1.0)
    studio, out = scene_studio(annotated=4), tmp_path / "out.json"
    wrong = exchange(studio, 2, "sky", "house")
    made = run(studio, "label-errors", *MODEL, f"--json={out}")
    assert made.exit_code == 1
    assert f"2 {wrong} Painted “house”" in " ".join(made.output.split())
    assert "it is away" in made.output
    assert json.loads(out.read_text())["suspicions"][0]["annotation"] == wrong


def test_agreement_is_told_and_made_a_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    whole, half = brushed((0, 0, 20, 20)), brushed((0, 0, 10, 20))
    studio = shared_studio([(1, [whole]), (2, [half])], [(1, []), (2, [])])
    studio.annotate(2, [brushed((0, 0, 5, 5), "no label")], completed_by=1)
    models = tmp_path / "models"
    made = run(studio, "agreement", "--make-view", f"--model-dir={models}", answer="y\n")
    assert made.exit_code == 0, made.output
    said = " ".join(made.output.split())
    assert "in dispute: 25.0 % of the pixels of 1 picture " in said
    assert "car 1 50.0 %" in said
    assert "car nothing 25.0 %" in said
    assert "Ann Berg 1 50.0 %" in said
    assert said.index("Ann Berg") < said.index("bob@example.com")
    assert len(studio.tabs) == 1
    kept = RunStore(Database(f"sqlite:///{models}/clearclip.db")).last(AGREEMENT, 7)
    assert kept is not None
    assert kept[1].disputes[0].task == 1


def test_a_project_with_nothing_to_compare_yet_is_no_failure() -> None:
    made = run(shared_studio([(1, [brushed((0, 0, 20, 20))])]), "agreement", "--make-view")
    assert made.exit_code == 0, made.output
    assert "There is nothing to compare yet: no task has annotations of several" in made.output
    assert "there is no view to make" in made.output


def test_the_best_words_are_named(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    tried = ["--label=grass", "--words=xylophone", "--words=lawn, meadow", f"--json={out}"]
    made = run(scene_studio(annotated=2), "words", *MODEL, *tried)
    assert made.exit_code == 0, made.output
    assert "lawn, meadow" in made.output
    told = json.loads(out.read_text())
    assert told["is_corrected"] is True
    assert [row["words"] for row in told["trials"]][-1] == ["xylophone"], "the worst comes last"


def test_all_words_are_checked_also_where_nobody_has_corrected_anything() -> None:
    studio = scene_studio(annotated=0)
    planted = '<Label value="zither"/></BrushLabels>'
    studio.label_config = studio.label_config.replace("</BrushLabels>", planted)
    result = run(studio, "words", *MODEL, "--pictures=2")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "2 pictures, not corrected" in said
    assert "“zither” (zither) means as little" in said
    result = run(studio, "words", *MODEL, "--label=grass", "--words=lawn", "--pictures=1")
    assert "Nothing is ranked" in result.output


def test_a_wrong_request_of_words_ends_with_a_sentence() -> None:
    result = run(scene_studio(annotated=2), "words", *MODEL, "--words=lune")
    assert result.exit_code == 1
    assert 'Expected "label" to name the label' in result.output
    assert "corrected picture" not in result.output, "nothing is measured"


def test_models_are_compared_as_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.runs.models._METHODS", ("clearclip", "rfclip"))
    made = run(scene_studio(annotated=2), "models", *MODEL)
    assert made.exit_code == 0, made.output
    kept = RunStore(Database.from_settings(Settings())).last(MODELS, 7)
    assert kept is not None
    for row in model_rows(kept[1]):
        assert " ".join(row).split() == next(
            line.split() for line in made.output.splitlines() if line.startswith(row[0])
        )
    assert "2 pictures: too few to tell" in made.output
    assert "Not compared: method rfclip" in made.output
