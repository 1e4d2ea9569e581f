"""A lock that serves threads in the order in which they ask for it."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """A lock that is first come, first served.

    A thread that releases a `threading.Lock` may get it again at once, any number of times, while
    other threads wait.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    def __enter__(self) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                self._changed.wait_for(lambda: self._queue[0] is ticket)
            except BaseException:  # an interrupt: the threads behind must not wait for ever
                self._queue.remove(ticket)
                self._changed.notify_all()
                raise

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._queue.popleft()
            self._changed.notify_all()
