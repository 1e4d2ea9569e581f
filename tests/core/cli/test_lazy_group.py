"""Commands are imported when they are called, and their group's help says what their own says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from clearclip_core.cli import main as core_cli


@pytest.mark.parametrize(
    ("module", "arguments", "allowed"),
    [
        ("backend", ["--help"], set()),
        ("backend", ["--version"], set()),
        ("clearclip_core.cli.main", ["--help"], set()),
        ("clearclip_core.cli.main", ["--version"], set()),
        ("clearclip_core.cli.main", ["segment", "--help"], {"numpy"}),
    ],
)
def test_help_and_version_import_neither_torch_nor_the_server(
    module: str, arguments: list[str], allowed: set[str]
) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = {['program', *arguments]!r}\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "loaded = {'torch', 'open_clip', 'numpy', 'flask', 'sqlalchemy', 'label_studio_sdk'}\n"
        f"loaded -= {allowed!r}\n"
        "print(sorted(loaded & set(sys.modules)), file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stderr.strip().splitlines()[-1] == "[]"
    assert result.stdout


def test_a_command_that_is_not_listed_is_refused_by_its_name() -> None:
    result = CliRunner().invoke(core_cli.main, ["segmnt"])
    assert result.exit_code == 2
    assert "No such command 'segmnt'" in result.output
