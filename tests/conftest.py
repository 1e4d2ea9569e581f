"""What a test sets up in the process ends with it."""

import logging
from collections.abc import Iterator

import pytest


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
