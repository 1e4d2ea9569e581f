"""A fair queue: the urgent first, projects in turn, and nobody waits for ever."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
Lines = OrderedDict[Hashable, deque[T]]


class FairQueue(Generic[T]):
    """Serves items by priority, then owners in turn, then in the order of arrival.

    A priority that has been skipped `max_skips` times is served once, whatever is more urgent. Not
    thread-safe: threads that share one hold a lock.

    Args:
        max_skips: how many others may be served before an item at the head of a less urgent
            priority.

    Raises:
        ValueError: `max_skips` below 1.

    >>> queue = FairQueue[str](max_skips=8)
    >>> for name, owner in [("a1", "a"), ("a2", "a"), ("b1", "b")]:
    ...     queue.push(name, priority=2, owner=owner)
    >>> queue.push("click", priority=0, owner="a")
    >>> [queue.pop() for _ in range(4)]
    ['click', 'a1', 'b1', 'a2']
    """

    def __init__(self, max_skips: int) -> None:
        if max_skips < 1:
            raise ValueError(f"Expected argument `max_skips` to be 1 or more, but got {max_skips}.")
        self._max_skips = max_skips
        self._by_priority: dict[int, Lines[T]] = {}  # owners in the order of their turns
        self._skips: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[T]:
        """Iterate over all items in an undefined order."""
        for lines in self._by_priority.values():
            for line in lines.values():
                yield from line

    def push(self, item: T, priority: int, owner: Hashable, first: bool = False) -> None:
        """Add an item.

        Args:
            item: the item.
            priority: the lowest number is the most urgent.
            owner: owners of one priority take turns.
            first: before all others of its owner, instead of after them.
        """
        line = self._by_priority.setdefault(priority, OrderedDict()).setdefault(owner, deque())
        if first:
            line.appendleft(item)
        else:
            line.append(item)

    def peek(self) -> T:
        """Return the item that `pop` would take.

        Raises:
            IndexError: nothing waits.
        """
        return next(iter(self._by_priority[self._next_priority()].values()))[0]

    def pop(self) -> T:
        """Take the next item.

        Raises:
            IndexError: nothing waits.
        """
        served = self._next_priority()
        lines = self._by_priority[served]
        owner, line = next(iter(lines.items()))
        item = line.popleft()
        lines.move_to_end(owner)
        self._remove_empty()
        for priority in self._by_priority:
            self._skips[priority] = self._skips.get(priority, 0) + 1
        self._skips[served] = 0
        return item

    def take(self, wanted: Callable[[T], bool]) -> list[T]:
        """Take all items that are wanted, out of turn."""
        taken = [item for item in self if wanted(item)]
        for lines in self._by_priority.values():
            for owner, line in lines.items():
                lines[owner] = deque(item for item in line if not wanted(item))
        self._remove_empty()
        return taken

    def _next_priority(self) -> int:
        if not self._by_priority:
            raise IndexError("Nothing waits in the queue.")
        skips = {priority: self._skips.get(priority, 0) for priority in self._by_priority}
        longest = max(self._by_priority, key=lambda priority: (skips[priority], -priority))
        return longest if skips[longest] >= self._max_skips else min(self._by_priority)

    def _remove_empty(self) -> None:
        """Remove owners and priorities without items."""
        for priority, lines in list(self._by_priority.items()):
            for owner in [owner for owner, line in lines.items() if not line]:
                del lines[owner]
            if not lines:
                del self._by_priority[priority]
                self._skips.pop(priority, None)
