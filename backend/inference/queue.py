"""Requests to the model, and their queue: the urgent first, projects in turn."""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Generic, TypeVar

from backend.errors import Busy, ModelUnavailable
from backend.inference.encoded_image import EncodedImage
from clearclip_core import Adaptation, Label, PreparedImage


class Priority(IntEnum):
    """The order of service; the lowest number is the most urgent."""

    INTERACTIVE = 0  # an annotator has clicked and waits
    OPENED = 1  # an annotator has opened a task
    BATCH = 2  # a project is being prelabeled

    @property
    def word(self) -> str:
        """The priority's name in answers, metrics and logs."""
        return ("interactive", "opened", "batch")[self]


@dataclass(eq=False)
class ImageRequest:
    """An image that is to be encoded and scored."""

    image: PreparedImage
    key: str  # of its features in the cache
    labels: tuple[Label, ...]
    priority: Priority
    project: Hashable
    adaptation: Adaptation | None = None  # that its scores follow; None for the words alone
    encoded: Future[EncodedImage] = field(default_factory=Future)
    #: The model has taken it, or never will.
    began: threading.Event = field(default_factory=threading.Event)
    is_new: bool = True  # whether it has not been checked for missing words yet


MAX_SKIPS: Final = 16  # how many more urgent images are served before one of a less urgent class

#: Most images of one priority that wait, and most vocabularies that are being embedded.
CAPACITY: Final = 64

_T = TypeVar("_T")
Lines = OrderedDict[Hashable, deque[_T]]


class FairQueue(Generic[_T]):
    """Serves items by priority, then owners in turn, then in the order of arrival.

    A priority that has been skipped `MAX_SKIPS` times is served once, whatever is more urgent. Not
    thread-safe: threads that share one hold a lock.

    >>> queue = FairQueue[str]()
    >>> for name, owner in [("a1", "a"), ("a2", "a"), ("b1", "b")]:
    ...     queue.push(name, priority=2, owner=owner)
    >>> queue.push("click", priority=0, owner="a")
    >>> [queue.pop() for _ in range(4)]
    ['click', 'a1', 'b1', 'a2']
    """

    def __init__(self) -> None:
        self._by_priority: dict[int, Lines[_T]] = {}  # owners in the order of their turns
        self._skips: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[_T]:
        """Iterate over all items in an undefined order."""
        for lines in self._by_priority.values():
            for line in lines.values():
                yield from line

    def push(self, item: _T, priority: int, owner: Hashable, first: bool = False) -> None:
        """Add an item, the last of its owner's or the `first`; the lowest priority comes first."""
        line = self._by_priority.setdefault(priority, OrderedDict()).setdefault(owner, deque())
        if first:
            line.appendleft(item)
        else:
            line.append(item)

    def peek(self) -> _T:
        """Return the item that `pop` would take."""
        return next(iter(self._by_priority[self._next_priority()].values()))[0]

    def pop(self) -> _T:
        """Take the next item."""
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

    def take(self, wanted: Callable[[_T], bool]) -> list[_T]:
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
        return longest if skips[longest] >= MAX_SKIPS else min(self._by_priority)

    def _remove_empty(self) -> None:
        """Remove owners and priorities without items."""
        for priority, lines in list(self._by_priority.items()):
            for owner in [owner for owner, line in lines.items() if not line]:
                del lines[owner]
            if not lines:
                del self._by_priority[priority]
                self._skips.pop(priority, None)


class ImageQueue:
    """Holds image requests until they are served, and counts them until they are resolved.

    A request counts as waiting until `finish` or `fail`, in the queue or outside of it. Threads may
    share it: `changed` guards it, and is notified of requests that come and that are resolved.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._queue = FairQueue[ImageRequest]()
        self._by_project: Counter[tuple[Priority, Hashable]] = Counter()
        self.done = self.failed = 0  # requests that were scored, and that ended in an error

    def __len__(self) -> int:
        with self._changed:
            return len(self._queue)

    @property
    def waiting_by_project(self) -> dict[tuple[Priority, Hashable], int]:
        """The number of unresolved requests by priority and project; only those above 0."""
        with self._changed:
            return dict(self._by_project)

    def waiting(self, priority: Priority) -> int:
        """Count the unresolved requests of a priority."""
        return sum(n for (each, _), n in self.waiting_by_project.items() if each is priority)

    def has_room(self, priority: Priority) -> bool:
        """Return whether one more request of a priority may wait."""
        return self.waiting(priority) < CAPACITY

    def put(self, request: ImageRequest) -> None:
        """Append a request, or raise `Busy`: as many of its priority as may wait do so already."""
        with self._changed:
            if not self.has_room(request.priority):
                raise Busy("Too many pictures wait for the model: try again in a moment.")
            self._by_project[request.priority, request.project] += 1
            self._queue.push(request, request.priority, request.project)
            self._changed.notify_all()

    def requeue(self, requests: Iterable[ImageRequest]) -> None:
        """Put requests before all others of their project: they came before these."""
        with self._changed:
            for request in reversed(list(requests)):
                self._queue.push(request, request.priority, request.project, first=True)

    def pop_if(self, fits: Callable[[ImageRequest], bool]) -> ImageRequest | None:
        """Take the next request if it fits; None if it does not, or if none is queued."""
        with self._changed:
            if self._queue and fits(self._queue.peek()):
                return self._queue.pop()
            return None

    def take(self, wanted: Callable[[ImageRequest], bool]) -> list[ImageRequest]:
        """Take all queued requests that are wanted, out of turn."""
        with self._changed:
            return self._queue.take(wanted)

    def finish(self, request: ImageRequest, encoded: EncodedImage) -> None:
        """Resolve a request with its features and scores."""
        with self._changed:
            self.done += 1
            self._leave(request)
        request.encoded.set_result(encoded)

    def fail(self, request: ImageRequest, error: Exception) -> None:
        with self._changed:
            self.failed += 1
            self._leave(request)
        request.encoded.set_exception(error)

    def fail_all(self, reason: str) -> None:
        """Fail all queued requests with `ModelUnavailable`."""
        for request in self.take(lambda _: True):
            self.fail(request, ModelUnavailable(reason))

    def _leave(self, request: ImageRequest) -> None:
        request.began.set()
        self._by_project[request.priority, request.project] -= 1
        self._by_project += Counter()  # without those at 0: projects come and go
        self._changed.notify_all()
