"""Hand out a fixed number of slots, to those who wait in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final

#: How many requests of annotators may wait in line. Each holds a thread.
MAX_WAITING: Final = 64

#: How many batches may wait in line. Each holds a thread and its tasks.
MAX_WAITING_BATCHES: Final = 16


@dataclass(eq=False)
class _Waiter:
    has_slot: bool = False
    called: threading.Event = field(default_factory=threading.Event)


class SlotQueue:
    """A semaphore with a bounded first-in, first-out queue.

    Args:
        slots: how many may be held at once.
        max_waiting: how many may wait in line; 0: nobody waits.
    """

    def __init__(self, slots: int, max_waiting: int) -> None:
        self._free = slots
        self._max_waiting = max_waiting
        self._waiters: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        with self._lock:
            return len(self._waiters)

    @property
    def has_free(self) -> bool:
        """Whether a slot is free. Nobody waits while one is."""
        with self._lock:
            return self._free > 0

    def acquire(self, timeout_s: float) -> bool:
        """Take a slot, waiting in line for one; return whether there was one in time.

        Args:
            timeout_s: the longest wait, in seconds. Where the line is full, there is no wait.
        """
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            if len(self._waiters) >= self._max_waiting:
                return False
            waiter = _Waiter()
            self._waiters.append(waiter)
        waiter.called.wait(timeout_s)
        with self._lock:
            if not waiter.has_slot:
                self._waiters.remove(waiter)
            return waiter.has_slot

    def release(self) -> None:
        """Hand a slot to the first in line, or give it back."""
        with self._lock:
            if not self._waiters:
                self._free += 1
                return
            waiter = self._waiters.popleft()
            waiter.has_slot = True
            waiter.called.set()
