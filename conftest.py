"""A run of the tests that leaves a new file in the repository fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent

#: Folders that tools write to, those whose name begins with a dot apart.
CACHES = {"__pycache__", "build", "dist", "results"}

BEFORE = pytest.StashKey[set[Path]]()


def files() -> set[Path]:
    """Every file below the repository's root, without caches and environments."""
    found = set()
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name not in CACHES and not name.startswith(".") and not name.endswith(".egg-info")
        ]
        found |= {Path(folder, name).relative_to(ROOT) for name in names}
    return found


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[BEFORE] = files()


def pytest_sessionfinish(session: pytest.Session) -> None:
    new = sorted(map(str, files() - session.config.stash[BEFORE]))
    if not new:
        return
    session.exitstatus = pytest.ExitCode.TESTS_FAILED
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"The run left new files in the repository: {', '.join(new)}", red=True)
