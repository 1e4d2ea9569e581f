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

#: Clients whose last turn is remembered, also while they hold no slot and do not wait.
_REMEMBERED: Final = 1024

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
    places loses its newest one to a client with fewer; of clients with equally many, the one whose
    last turn was latest loses one to a client whose own was before. So as many clients as there are
    places cannot keep out one that is served less often. A client that is alone has the whole line.

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
        self._turns: dict[str, int] = {}  # by client; the last one stands last
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
        self._turns.pop(client, None)
        self._turns[client] = next(self._next_turn)
        if len(self._turns) > _REMEMBERED:
            del self._turns[next(iter(self._turns))]

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

        def share(each: str, more: int = 0) -> tuple[int, int]:
            return places[each] + more, self._turns.get(each, 0)

        largest = max(places, key=share, default=client)
        if share(largest) <= share(client, 1):
            return False
        newest = [each for each in self._waiters if each.client == largest][-1]
        self._waiters.remove(newest)
        newest.called.set()
        return True
