"""Bound how many requests for predictions hold a thread, and how many threads the server has."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from backend.errors import Busy

#: Threads for ``/health``, ``/setup``, pages and all else that is answered at once.
_OTHER_THREADS: Final = 24

_BUSY: Final = "Too many requests for predictions: try again in a moment."


class Slots:
    """A semaphore that a bounded number of threads may wait for.

    >>> slots = Slots(1, waiting=0)
    >>> with slots.hold(0), slots.hold(0):
    ...     pass
    Traceback (most recent call last):
    backend.errors.Busy: Too many requests for predictions: try again in a moment.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self.places = at_once + waiting
        self._places = threading.BoundedSemaphore(self.places)
        self._slots = threading.BoundedSemaphore(at_once)

    @contextmanager
    def hold(self, timeout_s: float) -> Iterator[None]:
        """Hold a slot, after waiting for it.

        Raises:
            Busy: none was free in time, or too many threads wait already.
        """
        if not self._places.acquire(blocking=False):
            raise Busy(_BUSY)
        try:
            if not self._slots.acquire(timeout=timeout_s):
                raise Busy(_BUSY)
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._places.release()


class RequestSlots:
    """The slots of requests for predictions."""

    def __init__(self, threads: int) -> None:
        self.bodies = Slots(1, waiting=64)
        self.annotators = Slots(threads, waiting=64)
        self.batches = Slots(max(2, threads // 4), waiting=16)
        held = self.bodies.places + self.annotators.places + self.batches.places
        self.threads = held + _OTHER_THREADS
