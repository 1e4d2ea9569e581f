"""Commands are imported when they are called, and their group's help says what their own says."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from backend.cli import main as backend_cli
from clearclip_core.cli import main as core_cli
from clearclip_core.cli.lazy_group import CommandSource, LazyGroup

GROUPS = [core_cli, backend_cli]


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param(module.main, name, id=f"{module.__name__} {name}")
        for module in GROUPS
        for name in module.COMMANDS
    ],
)
def test_the_summary_is_the_first_sentence_of_the_commands_own_help(
    group: LazyGroup, name: str
) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert group.sources[name].summary == command.get_short_help_str(limit=500)


@pytest.mark.parametrize("arguments", ["--help", "--version"])
@pytest.mark.parametrize("module", ["backend", "clearclip_core.cli.main"])
def test_help_and_version_import_neither_torch_nor_the_server(module: str, arguments: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['program', {arguments!r}]\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "loaded = {'torch', 'open_clip', 'numpy', 'flask', 'sqlalchemy', 'label_studio_sdk'}\n"
        "print(sorted(loaded & set(sys.modules)), file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stderr.strip().splitlines()[-1] == "[]"
    assert result.stdout


def test_every_command_is_listed_in_the_order_of_the_table_with_its_whole_summary() -> None:
    listed = CliRunner().invoke(core_cli.main, ["--help"]).output
    places = [listed.index(f"\n  {name} ") for name in core_cli.COMMANDS]
    assert places == sorted(places)
    assert "..." not in listed.split("Commands:")[1]


def test_a_command_that_is_not_listed_is_refused_by_its_name() -> None:
    result = CliRunner().invoke(core_cli.main, ["segmnt"])
    assert result.exit_code == 2
    assert "No such command 'segmnt'" in result.output


def test_what_is_no_command_is_refused() -> None:
    source = CommandSource("clearclip_core.cli.lazy_group", "LazyGroup", "No command.")
    group = LazyGroup(name="group", sources={"wrong": source})
    with pytest.raises(TypeError, match="LazyGroup is no click command"):
        group.get_command(click.Context(group), "wrong")
