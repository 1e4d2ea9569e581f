"""Hand out a fixed number of slots to those who wait in line, each client in its turn."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

#: How many requests of annotators may wait in line. Each holds a thread.
MAX_WAITING: Final = 64

#: How many batches may wait in line. Each holds a thread and its tasks.
MAX_WAITING_BATCHES: Final = 16

#: Time between two looks whether a client that waits is still there, in seconds.
_LOOK_INTERVAL_S: Final = 0.5


@dataclass(eq=False)
class _Waiter:
    client: str
    has_slot: bool = False
    called: threading.Event = field(default_factory=threading.Event)


class SlotQueue:
    """A semaphore with a bounded queue that no client can fill for the others.

    A slot goes to the client that holds the fewest, of equal ones to the one whose last turn was
    longest ago, and then to the first in line. Where the line is full, the client with the most
    places loses its newest one to a client with fewer.
    A client that is alone has the whole line.

    Args:
        slots: how many may be held at once.
        max_waiting: how many may wait in line; 0: nobody waits.
        reserved: slots of these that only a client may take that holds none.
    """

    def __init__(self, slots: int, max_waiting: int, reserved: int = 0) -> None:
        self._slots = slots
        self._most_of_client = slots - reserved
        self._max_waiting = max_waiting
        self._held: Counter[str] = Counter()
        self._waiters: list[_Waiter] = []
        self._turns: dict[str, int] = {}  # of the clients that hold a slot or wait
        self._next_turn = count(1)
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        with self._lock:
            return len(self._waiters)

    def has_free(self, client: str = "") -> bool:
        """Whether a slot is free for a client. None of its requests waits while one is."""
        with self._lock:
            return self._is_free_for(client)

    def acquire(
        self,
        timeout_s: float,
        client: str = "",
        is_gone: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Take a slot, waiting in line for one; return whether there was one in time.

        Args:
            timeout_s: the longest wait, in seconds. There is none where the line is full, and its
                places are shared fairly.
            client: who asks, such as its address.
            is_gone: tells whether the client is there no more; then the wait ends.
        """
        with self._lock:
            if self._is_free_for(client):
                self._take(client)
                return True
            if timeout_s <= 0 or not self._has_place(client):
                return False
            waiter = _Waiter(client)
            self._waiters.append(waiter)
        end = time.monotonic() + timeout_s
        while (left_s := end - time.monotonic()) > 0 and not is_gone():
            if waiter.called.wait(min(left_s, _LOOK_INTERVAL_S)):
                break
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            return waiter.has_slot

    def release(self, client: str = "") -> None:
        """Hand a slot of a client to the next in line, or give it back."""
        with self._lock:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]
            able = [each for each in self._waiters if self._is_free_for(each.client)]
            if not able:
                return
            waiter = min(able, key=lambda each: self._rank(each.client))
            self._waiters.remove(waiter)
            self._take(waiter.client)
            waiter.has_slot = True
            waiter.called.set()

    def _take(self, client: str) -> None:
        self._held[client] += 1
        there = {*self._held, *(each.client for each in self._waiters)}
        self._turns = {each: turn for each, turn in self._turns.items() if each in there}
        self._turns[client] = next(self._next_turn)

    def _rank(self, client: str) -> tuple[int, int]:
        return self._held[client], self._turns.get(client, 0)

    def _is_free_for(self, client: str) -> bool:
        has_free = self._held.total() < self._slots
        held = self._held[client]
        return has_free and (not held or held < self._most_of_client)

    def _has_place(self, client: str) -> bool:
        """Return whether there is a place in line, which another client may have to leave."""
        if len(self._waiters) < self._max_waiting:
            return True
        places = Counter(each.client for each in self._waiters)
        largest, most = next(iter(places.most_common(1)), (client, 0))
        if most <= places[client] + 1:
            return False
        newest = [each for each in self._waiters if each.client == largest][-1]
        self._waiters.remove(newest)
        newest.called.set()
        return True
