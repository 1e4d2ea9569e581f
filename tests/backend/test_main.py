"""What has to be so before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def run(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    inherited = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_package_alone_loads_no_torch() -> None:
    assert run("import sys, backend.__main__; print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize("command", ["dataset", "import_masks"])
def test_commands_that_need_no_model_load_no_torch(command: str) -> None:
    code = f"import sys, backend.cli.{command}; print('torch' in sys.modules)"
    assert run(code) == "False"


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")]
)
def test_waiting_threads_sleep_unless_told_otherwise(given: dict[str, str], expected: str) -> None:
    code = (
        "import os, sys, backend.__main__ as entry\n"
        "sys.argv = ['clearclip-backend', '--help']\n"
        "try:\n    entry.main()\nexcept SystemExit:\n    print(os.environ['OMP_WAIT_POLICY'])"
    )
    assert run(code, **given).splitlines()[-1] == expected
