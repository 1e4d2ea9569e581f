"""The limit of a test does not cover the start of Label Studio, and still ends the test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = """
import time
import pytest

pytestmark = pytest.mark.timeout(1, method="signal")

@pytest.fixture(scope="session")
def studio():
    time.sleep(2)

@pytest.fixture(scope="session")
def another():
    time.sleep(2)

def test_it_waits_for_the_start(studio):
    pass

def test_it_takes_too_long_itself(studio):
    time.sleep(20)

def test_it_waits_for_another_fixture(another):
    pass
"""


def outcomes(folder: Path, *plugins: str) -> set[str]:
    """Run these tests in a process; the value is what became of each."""
    (folder / "test_limits.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "-c", "/dev/null"]
    command += [f"--rootdir={folder}", *(f"-p{each}" for each in plugins), "test_limits.py"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        timeout=120,
        check=False,
    )
    lines = [line.split(" - ")[0] for line in done.stdout.splitlines()]
    found = {line for line in lines if line.startswith(("PASSED", "FAILED", "ERROR test"))}
    assert len(found) == 3, done.stdout
    return {line.replace("test_limits.py::test_", "") for line in found}


def test_the_limit_of_a_test_begins_after_the_start_of_servers(tmp_path: Path) -> None:
    waits, long = "it_waits_for_the_start", "it_takes_too_long_itself"
    other = "ERROR it_waits_for_another_fixture"
    with_allowance = outcomes(tmp_path, "tests.e2e.start_allowance")
    assert with_allowance == {f"PASSED {waits}", f"FAILED {long}", other}
    assert outcomes(tmp_path) == {f"ERROR {waits}", f"ERROR {long}", other}, "without it"
