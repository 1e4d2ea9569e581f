"""Give each request a thread; health, readiness, metrics and setup have threads of their own."""

from __future__ import annotations

import logging
from typing import Any, Final

from waitress.task import ThreadedTaskDispatcher

from backend.web.ml_backend.slot_queue import MAX_WAITING, MAX_WAITING_BATCHES

#: Paths whose threads no other request takes, and how many each has. Whoever watches over the
#: backend must have an answer while predictions, pages and each other take all theirs, and Label
#: Studio gives up on a setup after 3 s.
RESERVED: Final = {"/health": 2, "/ready": 2, "/metrics": 2, "/setup": 16}

#: Threads on top of those of the settings, of those that wait in line and of batches, which have
#: slots of their own. They answer what there is no room for.
_THREADS_FOR_REFUSALS: Final = 8


class Dispatcher:
    """Put requests that have arrived into the queues of their threads.

    Args:
        threads: requests that are answered at the same time, beside those that are reserved for.
    """

    def __init__(self, threads: int) -> None:
        batches = threads // 2 + MAX_WAITING_BATCHES
        self._others = _pool(threads + MAX_WAITING + batches + _THREADS_FOR_REFUSALS)
        self._reserved = {path: _pool(count) for path, count in RESERVED.items()}

    def add_task(self, channel: Any) -> None:
        """Queue the first request of a connection."""
        path = getattr(channel.requests[0], "path", "")
        self._reserved.get(path, self._others).add_task(channel)

    def shutdown(self) -> None:
        """End the threads that do nothing; the others end with what they do."""
        for pool in (self._others, *self._reserved.values()):
            pool.set_thread_count(0)


def _pool(threads: int) -> ThreadedTaskDispatcher:
    pool = ThreadedTaskDispatcher()
    pool.queue_logger = logging.getLogger("backend.web.dispatcher.silent")
    pool.queue_logger.disabled = True  # it warns of each request that waits
    pool.set_thread_count(threads)
    return pool
