"""`clearclip-backend words` as a person uses it, on drawn scenes in a stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backend.cli.main import main
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer
from tests.backend.wording.scene_project import MODEL, scene_studio


@pytest.fixture
def studio() -> FakeStudio:
    return scene_studio(annotated=2)


@pytest.fixture
def server(studio: FakeStudio) -> Iterator[LocalServer]:
    with studio.served() as server:
        yield server


def run(server: LocalServer, *arguments: str, answer: str = "") -> Result:
    reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
    command = ["words", "--project", "7", *reach, *MODEL, *arguments]
    result = CliRunner().invoke(main, command, input=answer)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_the_best_words_are_named_and_written_after_asking(
    server: LocalServer, studio: FakeStudio, tmp_path: Path
) -> None:
    before, out = studio.label_config, tmp_path / "out.json"
    tried = ["--label=grass", "--words=xylophone", "--words=lawn, meadow", f"--json={out}"]
    refused = run(server, *tried, "--use=2", answer="n\n")
    assert refused.exit_code == 1
    assert studio.label_config == before
    assert "lawn, meadow" in refused.output
    told = json.loads(out.read_text())
    assert told["on"] == "corrected"
    assert [row["words"] for row in told["trials"]][-1] == ["xylophone"], "the worst comes last"
    used = run(server, *tried, "--use=2", answer="y\n")
    assert used.exit_code == 0, used.output
    line = '<Label value="grass" predicted_values="lawn, meadow"/>'
    assert studio.label_config == before.replace('<Label value="grass"/>', line)


def test_all_words_are_checked(server: LocalServer, studio: FakeStudio) -> None:
    planted = '<Label value="lawn"/><Label value="zither"/></BrushLabels>'
    studio.label_config = studio.label_config.replace("</BrushLabels>", planted)
    result = run(server, "--on=diverse", "--pictures=2")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "“lawn” (lawn) means nearly the same to the model as “grass” (grass)" in said
    assert "“zither” (zither) means as little to the model as a made-up word" in said


def test_a_wrong_request_ends_with_a_sentence(server: LocalServer) -> None:
    result = run(server, "--label=moon", "--words=lune")
    assert result.exit_code == 1
    assert "no label 'moon'" in result.output
    assert "--words needs --label." in run(server, "--words=lune").output
    assert "--threshold needs --label." in run(server, "--threshold=0.5").output


def test_a_row_that_no_trial_has_is_refused_before_anything_is_measured(
    server: LocalServer,
) -> None:
    result = run(server, "--label=grass", "--words=lawn", "--use=2")
    assert result.exit_code == 2
    assert "the rows are 0 to 1" in result.output
    assert "encoded in" not in result.output


def test_pictures_that_nobody_has_corrected_are_said_not_to_be_ranked(server: LocalServer) -> None:
    result = run(server, "--label=grass", "--words=lawn", "--on=diverse", "--pictures=1")
    assert result.exit_code == 0, result.output
    assert "1 picture, not corrected; " in result.output
    assert "Nothing is ranked" in result.output


def test_words_can_be_used_for_a_named_label_only(server: LocalServer) -> None:
    result = run(server, "--use=1")
    assert result.exit_code == 2
    assert "--use needs --label" in result.output
