"""`clearclip-backend agreement` as a person uses it, with a stand-in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy.exc import OperationalError

from backend.agreement.agreement_store import AgreementStore
from backend.cli.main import main
from backend.database.database import Database
from backend.settings import Settings
from tests.backend.agreement.shared_project import brushed, shared_studio
from tests.backend.fakes.label_studio import TOKEN


def test_figures_are_printed_kept_for_the_page_and_the_tasks_shown_as_a_view(
    tmp_path: Path,
) -> None:
    studio = shared_studio(
        [(1, [brushed((0, 0, 20, 20))]), (2, [brushed((0, 0, 10, 20))])], [(1, []), (2, [])]
    )
    studio.annotate(2, [brushed((0, 0, 5, 5), "no label")], completed_by=1)
    out = tmp_path / "out.json"
    with studio.served() as server:
        reach = [f"--label-studio-url={server.url}", f"--label-studio-api-key={TOKEN}"]
        command = ["agreement", "--project=7", *reach, f"--json={out}", "--view"]
        refused = CliRunner().invoke(main, command, input="n\n")
        assert refused.exit_code == 1
        assert not studio.tabs
        made = CliRunner().invoke(main, command, input="y\n")
    assert made.exit_code == 0, made.output
    said = " ".join(made.output.split())
    assert "in dispute: 25.0 % of the pixels of 1 picture " in said
    assert "car 1* 50.0 %" in said
    assert "car nothing 25.0 %" in said
    assert "Ann Berg 1* 50.0 %" in said
    assert "* of few pictures" in said
    assert said.index("Ann Berg") < said.index("bob@example.com")
    assert len(studio.tabs) == 1
    told = json.loads(out.read_text())
    assert told["disputes"][0]["task"] == 1
    kept = AgreementStore(Database.from_settings(Settings())).last(7)
    assert kept is not None
    assert json.loads(json.dumps(kept.report.to_json())) == told


def test_figures_are_told_before_a_database_that_has_gone_away_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("it is away"))

    monkeypatch.setattr(AgreementStore, "keep", fail)
    studio = shared_studio(
        [(1, [brushed((0, 0, 20, 20))]), (2, [brushed((0, 0, 10, 20))])], [(1, []), (2, [])]
    )
    out = tmp_path / "out.json"
    with studio.served() as server:
        reach = [f"--label-studio-url={server.url}", f"--label-studio-api-key={TOKEN}"]
        made = CliRunner().invoke(main, ["agreement", "--project=7", *reach, f"--json={out}"])
    assert made.exit_code == 1
    said = " ".join(made.output.split())
    assert "in dispute: 25.0 % of the pixels of 1 picture " in said
    assert "it is away" in said
    assert json.loads(out.read_text())["disputes"][0]["task"] == 1


def test_the_report_is_kept_in_the_database_of_the_model_folder_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    studio = shared_studio([(person, [brushed((0, 0, 20, 20))]) for person in (1, 2)])
    models = tmp_path / "models"
    with studio.served() as server:
        reach = [f"--label-studio-url={server.url}", f"--label-studio-api-key={TOKEN}"]
        command = ["agreement", "--project=7", *reach, f"--model-dir={models}"]
        made = CliRunner().invoke(main, command)
    assert made.exit_code == 0, made.output
    kept = AgreementStore(Database(f"sqlite:///{models}/clearclip.db")).last(7)
    assert kept is not None
    assert kept.report.annotations == 2


def test_a_project_with_nothing_to_compare_yet_is_no_failure(tmp_path: Path) -> None:
    studio = shared_studio([(1, [brushed((0, 0, 20, 20))])])
    out = tmp_path / "out.json"
    with studio.served() as server:
        reach = [f"--label-studio-url={server.url}", f"--label-studio-api-key={TOKEN}"]
        command = ["agreement", "--project=7", *reach, f"--json={out}", "--view"]
        made = CliRunner().invoke(main, command)
    assert made.exit_code == 0, made.output
    said = " ".join(made.output.split())
    assert "There is nothing to compare yet: no task has annotations of several people" in said
    assert "There is no view to make yet." in said
    assert "IoU" not in said
    told = json.loads(out.read_text())
    assert (told["pictures"], told["disputed"], told["disputes"]) == (0, None, [])
    assert not studio.tabs


def test_without_a_dispute_there_is_no_view() -> None:
    studio = shared_studio([(person, [brushed((0, 0, 20, 20))]) for person in (1, 2)])
    with studio.served() as server:
        reach = [f"--label-studio-url={server.url}", f"--label-studio-api-key={TOKEN}"]
        made = CliRunner().invoke(main, ["agreement", "--project=7", *reach, "--view"])
    assert made.exit_code == 0, made.output
    assert "Nothing is in dispute" in made.output
    assert not studio.tabs
