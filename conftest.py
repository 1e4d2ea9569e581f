"""The run as a whole: a new file in the repository fails it; several processes share it by file."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).parent

#: Folders that tools write to, those whose name begins with a dot apart.
CACHES = {"__pycache__", "build", "dist", "results"}

#: How the node ids of the end-to-end tests begin.
END_TO_END = "tests/e2e/"

#: Of these the files with servers of their own; the others share one Label Studio and one Chromium.
OWN_SERVERS = ("test_prelabel.py", "test_second_model.py", "test_two_days.py")

#: By how much the others give way to them, see nice(1).
_GIVES_WAY = 10

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


class FileScheduling(LoadFileScheduling):
    """A file's tests run in one process, and all end-to-end tests that share servers in one.

    The marker `xdist_group` would say the same, but pytest-xdist 3.8 forgets it with pytest 9.2,
    whose node ids are fixed at collection.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        shares = nodeid.startswith(END_TO_END) and not file.endswith(OWN_SERVERS)
        return END_TO_END if shares else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    return FileScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: that of the end-to-end tests mostly waits."""
    return min(1 + (os.cpu_count() or 1), 4)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the end-to-end tests where processes share the run: they take longest."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.nodeid.startswith(END_TO_END), reverse=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the end-to-end tests go first where processes share the run: they take longest."""
    gives_way = hasattr(item.config, "workerinput") and not item.nodeid.startswith(END_TO_END)
    if gives_way and os.nice(0) < _GIVES_WAY:
        os.nice(_GIVES_WAY)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let pytest-xdist send what tests of hostile texts have written: lone surrogates, too."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode("utf-8"))
        for name, text in report.sections
    ]
    return report


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
