"""Trace work through threads: facts for log lines, and time by stage.

`about` adds facts to all log lines of its block; `timed` and `stage` measure. Both are kept in
context variables: each thread has its own, and ``contextvars.copy_context().run`` carries them
over to another.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

Fact = str | int | float | None

_NOTHING: Mapping[str, Fact] = MappingProxyType({})

_facts: ContextVar[Mapping[str, Fact]] = ContextVar("facts", default=_NOTHING)


class Stages:
    """Measures one piece of work by stage, in seconds.

    Written by the thread that works, read by any thread.

    >>> with timed() as stages:
    ...     with stage("draw"), stage("fetch"):
    ...         stages.now
    'fetch'
    >>> sorted(stages.seconds)
    ['draw', 'fetch']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.now = ""
        self._inner = 0.0  # seconds of the stages inside the present one

    @contextmanager
    def enter(self, name: str) -> Iterator[None]:
        """Measure a stage; the time of stages inside it counts for those alone."""
        outer, outer_inner = self.now, self._inner
        self.now, self._inner = name, 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            own = elapsed - self._inner
            self.now, self._inner = outer, outer_inner + elapsed
            self._add(name, own)

    def _add(self, name: str, seconds: float) -> None:
        # A new dict each time: a reader in another thread has one that does not change.
        self.seconds = {**self.seconds, name: self.seconds.get(name, 0.0) + max(0.0, seconds)}


_stages: ContextVar[Stages | None] = ContextVar("stages", default=None)


@contextmanager
def about(**facts: Fact) -> Iterator[None]:
    """Add facts to the log lines of the block, beside those of the blocks around it.

    >>> with about(request="a1"), about(task=7):
    ...     dict(facts())
    {'request': 'a1', 'task': 7}
    """
    token = _facts.set(MappingProxyType({**_facts.get(), **facts}))
    try:
        yield
    finally:
        _facts.reset(token)


def facts() -> Mapping[str, Fact]:
    """Return the facts of this thread's context."""
    return _facts.get()


@contextmanager
def timed() -> Iterator[Stages]:
    """Measure the stages of the block, in this thread."""
    token = _stages.set(Stages())
    stages = _stages.get()
    assert stages is not None
    try:
        yield stages
    finally:
        _stages.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Measure a stage within `timed`; do nothing elsewhere. Also a decorator."""
    stages = _stages.get()
    if stages is None:
        yield
        return
    with stages.enter(name):
        yield
