"""The options that commands share."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from backend.cli.main import main
from backend.cli.options import with_settings
from backend.cli.serve import serve
from backend.errors import LabelConfigError
from backend.settings import Settings


def test_the_help_shows_what_values_a_flag_takes() -> None:
    shown = CliRunner().invoke(serve, ["--help"]).output
    for flag in ("--port NUMBER", "--min-island-share NUMBER", "--refine true|false"):
        assert flag in shown
    assert "--model-dir FOLDER" in shown
    assert "--model TEXT" in shown


@pytest.mark.parametrize("name", ["prelabel", "report", "export", "doctor", "demo", "serve"])
def test_every_option_has_its_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    options = [each for each in command.params if isinstance(each, click.Option)]
    assert [each.name for each in options if not each.help] == []


@click.command()
@click.option("--word")
@with_settings("port", "model")
def command(settings: Settings, word: str) -> None:
    """Print a setting, or refuse."""
    if word == "wrong":
        raise LabelConfigError("There is no label.")
    click.echo(f"{word} {settings.port}")


def test_a_command_gets_its_settings_and_its_own_options() -> None:
    result = CliRunner().invoke(command, ["--word", "port", "--port", "9191"])
    assert (result.exit_code, result.output) == (0, "port 9191\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["--word", "wrong"], "There is no label."), (["--port", "x"], "PORT: input should be")],
)
def test_a_command_ends_with_a_sentence(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {sentence}")
