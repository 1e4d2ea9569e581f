"""Which thread of the server answers which request: each kind of request has threads of its own.

A Label Studio that hangs holds the thread of each page that asks it, and a burst of clicks the
threads of predictions. Neither may hold those of ``/health``: Label Studio waits for it for 1 s.

Threads are started when they are needed, and stay: a server that nobody asks has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final, Literal, Protocol

Lane = Literal["health", "quick", "predict", "pages"]

#: Routes that wait for nobody. All routes that are not named here are pages.
_LANE_OF: Final[Mapping[str, Lane]] = {
    "/health": "health",
    "/ready": "health",
    "/setup": "quick",
    "/webhook": "quick",
    "/versions": "quick",
    "/metrics": "quick",
    "/predict": "predict",
}

#: The most threads of each lane; those of predictions are as many as may hold or wait for a slot.
#: A page waits for Label Studio for 10 s at most: beyond these, pages wait for each other. More of
#: them at once would share the interpreter with ``/health``.
_THREADS: Final[Mapping[Lane, int]] = {"health": 2, "quick": 8, "pages": 96}


class Channel(Protocol):
    """A connection of waitress with a request that is to be answered."""

    requests: list[Any]  # of waitress's parser; the first is the next

    def service(self) -> None:
        """Answer the first request."""


class Lanes:
    """Hands requests to threads, in place of waitress's own dispatcher of tasks.

    Args:
        prediction_threads: the most threads for ``/predict``.
    """

    def __init__(self, prediction_threads: int) -> None:
        threads = {**_THREADS, "predict": prediction_threads}
        self._pools = {
            lane: ThreadPoolExecutor(most, thread_name_prefix=lane)
            for lane, most in threads.items()
        }
        self._open: set[Future[None]] = set()

    def add_task(self, channel: Channel) -> None:
        """Have a request answered as soon as its lane has a thread."""
        answer = self._pools[lane_of(channel.requests[0].path)].submit(channel.service)
        self._open.add(answer)
        answer.add_done_callback(self._open.discard)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        """End the threads, and wait for the requests that have begun for `timeout` seconds."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=cancel_pending)
        return not wait(self._open.copy(), timeout).not_done


def lane_of(path: str) -> Lane:
    """Return the lane of a request.

    >>> lane_of("/health"), lane_of("/predict"), lane_of("/projects/7")
    ('health', 'predict', 'pages')
    """
    return _LANE_OF.get(path.rstrip("/") or "/", "pages")
