"""Who is served next: the urgent first, projects in turn, and nobody waits for ever."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
Lines = OrderedDict[Hashable, deque[T]]


class FairQueue(Generic[T]):
    """A queue in which urgency comes first, then owners in turn, then the order of arrival.

    A class of urgency that has been passed over `patience` times is served once, whatever is more
    urgent. Not thread-safe: whoever shares one holds a lock.

    Args:
        patience: how many others may be served before an item at the head of a less urgent class.

    Raises:
        ValueError: a patience below 1.

    >>> queue = FairQueue[str](patience=8)
    >>> for name, owner in [("a1", "a"), ("a2", "a"), ("b1", "b")]:
    ...     queue.push(name, urgency=2, owner=owner)
    >>> queue.push("click", urgency=0, owner="a")
    >>> [queue.pop() for _ in range(4)]
    ['click', 'a1', 'b1', 'a2']
    """

    def __init__(self, patience: int) -> None:
        if patience < 1:
            raise ValueError(f"Expected argument `patience` to be 1 or more, but got {patience}.")
        self._patience = patience
        self._classes: dict[int, Lines[T]] = {}  # owners in the order of their turns
        self._passed: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[T]:
        """All items, in no order that means anything."""
        for lines in self._classes.values():
            for line in lines.values():
                yield from line

    def push(self, item: T, priority: int, owner: Hashable, first: bool = False) -> None:
        """Let an item wait.

        Args:
            item: what waits.
            urgency: its class; the lowest number is the most urgent.
            owner: owners of one class take turns.
            first: before all others of its owner, instead of after them.
        """
        line = self._classes.setdefault(priority, OrderedDict()).setdefault(owner, deque())
        if first:
            line.appendleft(item)
        else:
            line.append(item)

    def peek(self) -> T:
        """What `pop` would return.

        Raises:
            IndexError: nothing waits.
        """
        return next(iter(self._classes[self._next_class()].values()))[0]

    def pop(self) -> T:
        """Take the item whose turn it is.

        Raises:
            IndexError: nothing waits.
        """
        served = self._next_class()
        lines = self._classes[served]
        owner, line = next(iter(lines.items()))
        item = line.popleft()
        lines.move_to_end(owner)
        self._tidy()
        for priority in self._classes:
            self._passed[priority] = self._passed.get(priority, 0) + 1
        self._passed[served] = 0
        return item

    def take(self, wanted: Callable[[T], bool]) -> list[T]:
        """Take all items that are wanted, out of turn."""
        taken = [item for item in self if wanted(item)]
        for lines in self._classes.values():
            for owner, line in lines.items():
                lines[owner] = deque(item for item in line if not wanted(item))
        self._tidy()
        return taken

    def _next_class(self) -> int:
        if not self._classes:
            raise IndexError("Nothing waits in the queue.")
        passed = {priority: self._passed.get(priority, 0) for priority in self._classes}
        longest = max(self._classes, key=lambda priority: (passed[priority], -priority))
        return longest if passed[longest] >= self._patience else min(self._classes)

    def _tidy(self) -> None:
        """Forget owners and classes without items."""
        for priority, lines in list(self._classes.items()):
            for owner in [owner for owner, line in lines.items() if not line]:
                del lines[owner]
            if not lines:
                del self._classes[priority]
                self._passed.pop(priority, None)
