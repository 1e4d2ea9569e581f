"""What a test sets up in the process ends with it, and how many inputs Hypothesis tries.

`CLEARCLIP_FUZZ` sets how many inputs each test tries; without it they are few, and the same ones
each time. No input has a deadline: a machine may be busy.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from tests.packages import Packages

_FUZZ: Final = int(os.environ.get("CLEARCLIP_FUZZ", "0"))

settings.register_profile(
    "clearclip",
    max_examples=_FUZZ or 100,
    derandomize=not _FUZZ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("clearclip")


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """What a command sets up for its own process must not outlive its test."""
    names = (None, "backend", "clearclip_core", "waitress", "waitress.queue")
    loggers = [logging.getLogger(name) for name in names]
    before = [(each.level, each.handlers[:], each.propagate) for each in loggers]
    yield
    for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
        for handler in set(logger.handlers) - set(handlers):
            logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packages:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return Packages(folder, monkeypatch)
