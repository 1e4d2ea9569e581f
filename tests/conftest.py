"""What a test sets up in the process ends with it."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

#: Tests that share one Label Studio and one Chromium.
_END_TO_END = Path(__file__).parent / "e2e"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep a file's tests, and all end-to-end tests, in one process of pytest-xdist.

    The end-to-end tests take longest, so they begin first there.
    """
    for item in items:
        group = "e2e" if _is_end_to_end(item) else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
    if hasattr(config, "workerinput"):
        items.sort(key=_is_end_to_end, reverse=True)


def _is_end_to_end(item: pytest.Item) -> bool:
    return _END_TO_END in item.path.parents


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let pytest-xdist send what tests of hostile texts have written: lone surrogates, too."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode("utf-8"))
        for name, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """What a command sets up for its own process must not outlive its test."""
    names = (None, "backend", "clearclip_core", "gunicorn.error", "gunicorn.access")
    loggers = [logging.getLogger(name) for name in names]
    before = [(each.level, each.handlers[:], each.propagate) for each in loggers]
    yield
    for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
        for handler in set(logger.handlers) - set(handlers):
            logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
