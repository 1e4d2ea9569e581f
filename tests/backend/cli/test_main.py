"""The command line `clearclip-backend`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from backend.cli import main as cli
from backend.cli.adapt import adapt
from clearclip_core.cli.main import main

#: Asks each command and each of its own commands for its help.
ALL_HELP = """
import sys
from click import Context, Group
from backend.cli.main import main

def show(command, path):
    context = Context(command, info_name=path)
    assert len(command.get_help(context)) > 100, path
    assert "torch" not in sys.modules, f"{path} --help imports torch"
    names = command.list_commands(context) if isinstance(command, Group) else []
    return 1 + sum(show(command.get_command(context, name), f"{path} {name}") for name in names)

print(show(main, "clearclip-backend"))
"""


def test_no_help_imports_torch_which_takes_seconds() -> None:
    root = Path(__file__).parents[3]
    ran = subprocess.run(
        [sys.executable, "-c", ALL_HELP], capture_output=True, text=True, cwd=root, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > len(cli.COMMANDS)


@pytest.mark.parametrize("group", [main, cli.main, adapt])
def test_no_sentence_of_the_list_of_commands_ends_in_an_abbreviation(group: click.Group) -> None:
    listed = CliRunner().invoke(group, ["--help"]).output
    assert not re.search(r"\b(Tabs?|Figs?)\.$", listed, re.MULTILINE)
