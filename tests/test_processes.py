"""How several processes share a run of the tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Tests that write what a process of pytest-xdist cannot send: half of a pair of surrogates.
TESTS = """\
import logging

import pytest


@pytest.mark.parametrize("number", range(4))
def test_something(number):
    logging.warning("a lone surrogate: \\ud800")
    assert {passes}
"""


def test_a_file_and_all_end_to_end_tests_stay_in_one_process(tmp_path: Path) -> None:
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").touch()
    for name in ("test_a.py", "test_b.py", "e2e/test_c.py", "e2e/test_d.py"):
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TESTS.format(passes=name != "test_b.py"), encoding="utf-8")
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-v", "-p", "xdist", "-p", "no:cacheprovider"]
    command += ["--numprocesses", "2", "--no-loadscope-reorder"]
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("PYTEST")}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment | plugins,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "4 failed, 12 passed" in done.stdout, done.stdout + done.stderr
    assert "waiting for node" not in done.stdout + done.stderr  # what the scheduler logs
    processes = defaultdict(set)
    ended = re.findall(r"^\[(gw\d)\].*(?:PASSED|FAILED) tests/(e2e|\S+?\.py)", done.stdout, re.M)
    for process, file in ended:
        processes[file].add(process)
    assert {file: len(each) for file, each in processes.items()} == {
        "e2e": 1,
        "test_a.py": 1,
        "test_b.py": 1,
    }
    assert len({process for process, _ in ended}) == 2
