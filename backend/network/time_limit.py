"""Limit how long a request may take in all, name look-ups and redirects included."""

from __future__ import annotations

import heapq
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType


class Clock:
    """Calls functions at set times, all in one thread.

    A timer for each request would be a thread for each request.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def call_at(self, when: float, function: Callable[[], None]) -> None:
        """Call a function at a time of the monotonic clock; it must be quick and raise nothing."""
        with self._changed:
            if not self._count:
                threading.Thread(target=self._run, name="clock", daemon=True).start()
            self._count += 1
            heapq.heappush(self._due, (when, self._count, function))
            if self._due[0][1] == self._count:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                wait_s = self._due[0][0] - time.monotonic() if self._due else None
                if wait_s is None or wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
                _, _, function = heapq.heappop(self._due)
            function()


class TimeLimit:
    """Closes the connections made under it when its time is over; a context manager.

    A timeout of a single read is no such limit: a server that sends a byte of a header or of a
    handshake now and then never exceeds it. The lookup of a name is not limited: the system's
    resolver ends it on its own.

    Args:
        seconds: time for everything together.
        clock: calls it when the time is over.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._end = time.monotonic() + seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []

    def __enter__(self) -> TimeLimit:
        self._clock.call_at(self._end, self._cut)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.lift()

    def lift(self) -> None:
        """Stop limiting the connections made so far."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    @property
    def left_s(self) -> float:
        """Seconds that are left; at least 0.001, as sockets take 0 for no timeout."""
        return max(0.001, self._end - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._end

    def hold(self, connection: socket.socket) -> None:
        """Close a connection when the time is over.

        A duplicate of the socket is kept, because TLS takes over the original.
        """
        with self._lock:
            self._connections.append(connection.dup())
        if self.is_over:
            self._cut()

    def _cut(self) -> None:
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # it has ended already
                    connection.shutdown(socket.SHUT_RDWR)
