"""The commands' help."""

import subprocess
import sys

import pytest

from clearclip_core.cli import main as core_cli


@pytest.mark.parametrize(
    ("module", "arguments", "allowed"),
    [
        ("backend", ["--help"], set()),
        ("clearclip_core.cli.main", ["--help"], set()),
        *(("clearclip_core.cli.main", [each, "--help"], {"numpy"}) for each in core_cli.COMMANDS),
    ],
)
def test_help_imports_no_heavy_module(module: str, arguments: list[str], allowed: set[str]) -> None:
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
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip().splitlines()[-1] == "[]"
    assert ran.stdout
