"""The bounded queue of images that wait for the model, with its counts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable

from backend.errors import Busy, ModelUnavailable
from backend.inference.fair_queue import FairQueue
from backend.inference.image_request import EncodedImage, ImageRequest, Priority

#: How many more urgent images are served before one of a less urgent class.
MAX_SKIPS = 16


class ImageQueue:
    """Holds image requests until they are served, and counts them until they are resolved.

    A request counts as waiting until `finish` or `fail`, in the queue or outside of it. Safe to
    share between threads.

    Args:
        capacity: most waiting requests of one priority.
        changed: guards the queue; notified when a request comes and when one is resolved.
    """

    def __init__(self, capacity: int, changed: threading.Condition) -> None:
        self._capacity = capacity
        self._changed = changed
        self._queue = FairQueue[ImageRequest](MAX_SKIPS)
        self._waiting: Counter[Priority] = Counter()
        self._by_project: Counter[tuple[Priority, Hashable]] = Counter()
        self._done = self._failed = 0

    def __len__(self) -> int:
        with self._changed:
            return len(self._queue)

    @property
    def waiting(self) -> dict[Priority, int]:
        """The number of unresolved requests of each priority."""
        with self._changed:
            return {priority: self._waiting[priority] for priority in Priority}

    @property
    def waiting_by_project(self) -> dict[tuple[Priority, Hashable], int]:
        """The number of unresolved requests by priority and project; only those above 0."""
        with self._changed:
            return dict(self._by_project)

    @property
    def done(self) -> int:
        """The number of requests that were scored."""
        return self._done

    @property
    def failed(self) -> int:
        """The number of requests that ended in an error."""
        return self._failed

    def has_room(self, priority: Priority) -> bool:
        """Return whether one more request of a priority may wait."""
        return self._waiting[priority] < self._capacity

    def put(self, request: ImageRequest) -> None:
        """Append a request.

        Raises:
            Busy: as many of its priority as may wait do so already.
        """
        with self._changed:
            if not self.has_room(request.priority):
                raise Busy("Too many pictures wait for the model: try again in a moment.")
            self._count(request, 1)
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
            self._done += 1
            self._leave(request)
        request.encoded.set_result(encoded)

    def fail(self, request: ImageRequest, error: Exception) -> None:
        """Resolve a request with an error."""
        with self._changed:
            self._failed += 1
            self._leave(request)
        request.encoded.set_exception(error)

    def fail_all(self, reason: str) -> None:
        """Fail all queued requests with `ModelUnavailable`."""
        for request in self.take(lambda _: True):
            self.fail(request, ModelUnavailable(reason))

    def _leave(self, request: ImageRequest) -> None:
        request.began.set()
        self._count(request, -1)
        self._by_project += Counter()  # without those at 0: projects come and go
        self._changed.notify_all()

    def _count(self, request: ImageRequest, change: int) -> None:
        self._waiting[request.priority] += change
        self._by_project[request.priority, request.project] += change
