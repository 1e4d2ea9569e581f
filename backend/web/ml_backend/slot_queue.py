"""Hand out a fixed number of slots to annotators and batches that wait in line for them.

Annotators come first. Batches hold at most half of the slots, so that no number of them keeps an
annotator out. While they hold less than a quarter, the first of them comes before annotators, so
that annotators who ask without end do not keep batches out.
"""

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
    """A semaphore with two bounded first-in, first-out queues: annotators and batches.

    Args:
        slots: how many may be held at once.
        max_waiting: how many annotators may wait in line; 0: none waits.
        max_waiting_batches: how many batches may wait in line; 0: none waits.

    Raises:
        ValueError: fewer than 2 slots, where a batch would keep annotators out.
    """

    def __init__(self, slots: int, max_waiting: int, max_waiting_batches: int) -> None:
        if slots < 2:
            raise ValueError(f"Expected argument `slots` to be 2 or more, but got {slots}.")
        self._free = slots
        self._batch_share = max(1, slots // 4)
        self._batch_limit = slots // 2
        self._batches = 0  # that hold a slot
        self._max_waiting = {False: max_waiting, True: max_waiting_batches}
        self._lines: dict[bool, deque[_Waiter]] = {False: deque(), True: deque()}
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many annotators wait in line."""
        with self._lock:
            return len(self._lines[False])

    @property
    def waiting_batches(self) -> int:
        """How many batches wait in line."""
        with self._lock:
            return len(self._lines[True])

    @property
    def has_free(self) -> bool:
        """Whether a slot is free, though perhaps for no batch."""
        with self._lock:
            return self._free > 0

    def acquire(self, is_batch: bool, timeout_s: float) -> bool:
        """Take a slot, waiting in line for one; return whether there was one in time.

        Args:
            is_batch: whether a batch asks, for which no annotator waits.
            timeout_s: the longest wait, in seconds. Where the line is full, there is no wait.
        """
        waiter, line = _Waiter(), self._lines[is_batch]
        with self._lock:
            line.append(waiter)
            self._hand_out()
            if not waiter.has_slot and len(line) > self._max_waiting[is_batch]:
                line.remove(waiter)
                return False
        waiter.called.wait(timeout_s)
        with self._lock:
            if not waiter.has_slot:
                line.remove(waiter)
            return waiter.has_slot

    def release(self, is_batch: bool) -> None:
        """Give a slot back, for the next in line.

        Args:
            is_batch: as it was acquired.
        """
        with self._lock:
            self._free += 1
            self._batches -= is_batch
            self._hand_out()

    def _hand_out(self) -> None:
        """Give free slots to those whose turn it is. The caller holds the lock."""
        while self._free and (line := self._next_line()):
            waiter = line.popleft()
            self._free -= 1
            self._batches += line is self._lines[True]
            waiter.has_slot = True
            waiter.called.set()

    def _next_line(self) -> deque[_Waiter] | None:
        """Return the line whose first has the next slot; None where nobody may have it."""
        annotators, batches = self._lines[False], self._lines[True]
        if batches and self._batches < self._batch_share:
            return batches
        if annotators:
            return annotators
        return batches if batches and self._batches < self._batch_limit else None
