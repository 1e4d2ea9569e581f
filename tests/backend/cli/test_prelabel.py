"""The command `clearclip-backend prelabel`; its runs: `tests.backend.jobs.test_prelabeler`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from backend.cli.main import main
from backend.inference.engine import Engine
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio


@pytest.fixture(autouse=True)
def _demo_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are there."""
    monkeypatch.setenv("MODEL", "demo")


@pytest.mark.parametrize(
    ("command", "token", "project", "sentence"),
    [
        ("prelabel", "cd" * 20, "7", "answers HTTP 401: check LABEL_STUDIO_API_KEY"),
        ("prelabel", TOKEN, "8", "answers HTTP 404: there is no such project"),
        ("adapt step", TOKEN, "8", "answers HTTP 404: there is no such project"),
    ],
)
def test_what_label_studio_refuses_is_said_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, command: str, token: str, project: str, sentence: str
) -> None:
    entered: list[Engine] = []
    monkeypatch.setattr(Engine, "__enter__", entered.append)
    with FakeStudio(brush_config("red"), {1: {"image": "1.png"}}).served() as server:
        monkeypatch.setenv("LABEL_STUDIO_URL", server.url)
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", token)
        result = CliRunner().invoke(main, [*command.split(), "--project", project])
    assert (result.exit_code, entered) == (1, [])
    assert sentence in result.output


def test_a_step_says_that_label_studio_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.services.RETRY_FOR_S", 0.0)
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    result = CliRunner().invoke(main, ["adapt", "step", "--project", "7"])
    assert result.exit_code == 1
    assert "Label Studio at http://127.0.0.1:1 cannot be reached" in result.output


def test_a_run_is_begun_while_label_studio_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits, as a run does that has begun before."""

    def enter(_: Engine) -> None:
        raise ValueError("The model would be loaded now.")

    monkeypatch.setattr(Engine, "__enter__", enter)
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    result = CliRunner().invoke(main, ["prelabel", "--project", "7"])
    assert result.output == "Error: The model would be loaded now.\n"
