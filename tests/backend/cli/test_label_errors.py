"""`clearclip-backend label-errors` as a person uses it, on drawn scenes in a stand-in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy.exc import OperationalError

from backend.cli.main import main
from backend.database.database import Database
from backend.label_errors.review_store import ReviewStore
from backend.settings import Settings
from tests.backend.fakes.label_studio import TOKEN
from tests.backend.label_errors.test_reviewer import exchange
from tests.backend.wording.scene_project import MODEL, painted, scene_studio, scenes


def test_the_worst_is_named_kept_for_the_page_and_shown_as_a_view(tmp_path: Path) -> None:
    studio, out = scene_studio(annotated=4), tmp_path / "out.json"
    wrong = exchange(studio, 2, "sky", "house")
    studio.annotate(1, painted(scenes()[0]), completed_by=2)  # a second person's
    with studio.served() as server:
        reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
        command = ["label-errors", "--project", "7", *reach, *MODEL, f"--json={out}", "--view"]
        refused = CliRunner().invoke(main, command, input="n\n")
        assert refused.exit_code == 1
        assert not studio.tabs
        made = CliRunner().invoke(main, command, input="y\n")
    assert made.exit_code == 0, made.output
    said = " ".join(made.output.split())
    assert "5 annotations of 4 pictures in" in said
    assert f"1 2 {wrong} Painted “house”, but it looks like “sky”." in said
    assert len(studio.tabs) == 1
    told = json.loads(out.read_text())
    assert told["suspicions"][0]["annotation"] == wrong
    assert (told["reviewed"], told["annotations"], told["pictures"]) == (5, 5, 4)
    kept = ReviewStore(Database.from_settings(Settings())).last(7)
    assert kept is not None
    assert json.loads(json.dumps(kept.report.to_json())) == told


def test_findings_are_told_before_a_database_that_has_gone_away_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("it is away"))

    monkeypatch.setattr(ReviewStore, "keep", fail)
    studio, out = scene_studio(annotated=4), tmp_path / "out.json"
    wrong = exchange(studio, 2, "sky", "house")
    with studio.served() as server:
        reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
        command = ["label-errors", "--project", "7", *reach, *MODEL, f"--json={out}"]
        made = CliRunner().invoke(main, command)
    assert made.exit_code == 1
    said = " ".join(made.output.split())
    assert f"1 2 {wrong} Painted “house”, but it looks like “sky”." in said
    assert "it is away" in said
    assert json.loads(out.read_text())["suspicions"][0]["annotation"] == wrong
