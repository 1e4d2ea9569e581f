"""The command group: each command is registered, and its help is printed."""

from __future__ import annotations

import click
import pytest

from clearclip_core.cli.main import main
from tests.core.cli.clearclip import clearclip

COMMANDS = {
    *("segment", "models", "sinks", "bench", "statistics"),
    *("eval", "merge", "prepare"),
    *("ablate", "tables"),
}


def test_the_group_holds_these_commands() -> None:
    assert set(main.list_commands(click.Context(main))) == COMMANDS


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_prints_its_help(name: str) -> None:
    result = clearclip(name, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: main {name} ")


def test_the_version_is_printed() -> None:
    result = clearclip("--version")
    assert result.exit_code == 0
    assert "version" in result.output
