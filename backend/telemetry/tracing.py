"""What a thread works at, and where its time goes: carried along, so that nobody hands it on.

`about` says what the work is about, for whoever writes a line in a log meanwhile; `timed` and
`stage` measure. Both live in context variables: each thread has its own, and
``contextvars.copy_context().run`` takes them along to another.
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
    """The seconds of one piece of work by stage, and the stage that it is in.

    Written by the thread that works, read by any.

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
        self._inner = 0.0  # what stages inside the present one have taken

    @contextmanager
    def enter(self, name: str) -> Iterator[None]:
        """Be in a stage; what stages inside it take is theirs alone."""
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
        # A new dict each time: who reads meanwhile has one that does not change.
        self.seconds = {**self.seconds, name: self.seconds.get(name, 0.0) + max(0.0, seconds)}


_stages: ContextVar[Stages | None] = ContextVar("stages", default=None)


@contextmanager
def about(**facts: Fact) -> Iterator[None]:
    """Say what is worked at; on top of what was said before, until the end of the block.

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
    """What this thread works at."""
    return _facts.get()


@contextmanager
def timed() -> Iterator[Stages]:
    """Measure the stages of what happens in the block, in this thread."""
    token = _stages.set(Stages())
    stages = _stages.get()
    assert stages is not None
    try:
        yield stages
    finally:
        _stages.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Measure a stage of what is `timed`; elsewhere, do nothing. A decorator as well."""
    stages = _stages.get()
    if stages is None:
        yield
        return
    with stages.enter(name):
        yield
