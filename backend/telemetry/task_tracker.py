"""Track tasks that run, failed or are done, for logs, metrics and the dashboard."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from backend.errors import BackendError
from backend.telemetry.logs import Stages, about, timed

log = logging.getLogger(__name__)

PACE_S = 60.0  # seconds over which the pace is measured
_MOST_REFUSALS = 20  # most refused requests that are kept: clients can send any number

TaskId = int | str | None


@dataclass(frozen=True)
class RefusedRequest:
    """A request that was refused as a whole: why, and when in seconds since the epoch."""

    sentence: str
    at: float


@dataclass(eq=False)
class TrackedTask:
    """A task that is worked on, or that was; takes its result."""

    task: TaskId
    project: int | None
    priority: str  # ``interactive``, ``opened`` or ``batch``
    stages: Stages
    start: float = field(default_factory=time.monotonic)  # on the monotonic clock
    images: int = 0
    regions: int = 0
    error: BaseException | None = None  # why its prediction is missing or incomplete
    is_incomplete: bool = False  # whether it has a prediction, but not of all its images

    @property
    def seconds(self) -> float:
        """The time since the work began."""
        return time.monotonic() - self.start

    @property
    def has_prediction(self) -> bool:
        """Whether it ended with a prediction, complete or not."""
        return self.error is None or self.is_incomplete

    def failed(self, error: BaseException) -> None:
        """Note that the task has no prediction because of an error."""
        self.error, self.is_incomplete = error, False

    def incomplete(self, error: BackendError) -> None:
        """Note that the task's prediction lacks some of its images because of an error."""
        self.error, self.is_incomplete = error, True


class TaskTracker:
    """Keeps running tasks, refused requests and the pace, within bounds; threads may share it.

    >>> tracker = TaskTracker()
    >>> with tracker.task(7, project=1, priority="batch") as work:
    ...     work.regions = 3
    >>> tracker.done
    1
    """

    def __init__(
        self,
        listener: Callable[[TrackedTask], None] = lambda _: None,  # of ended tasks; must not raise
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[int, TrackedTask] = {}
        self._refusals: deque[RefusedRequest] = deque(maxlen=_MOST_REFUSALS)
        self._ends: deque[tuple[float, int]] = deque()
        self.done = 0  # tasks that got a prediction since the start
        self._started_at = clock()

    @contextmanager
    def task(self, task: TaskId, project: int | None, priority: str) -> Iterator[TrackedTask]:
        """Track a task within the block; an exception that leaves the block is a failure."""
        with about(project=project, task=task, urgency=priority), timed() as stages:
            work = TrackedTask(task, project, priority, stages)
            with self._lock:
                self._running[id(work)] = work
            try:
                yield work
            except BaseException as error:
                work.failed(error)
                raise
            finally:
                self._end(work)

    def refused(self, sentence: str) -> None:
        """Keep why a request was refused as a whole; count no task."""
        with self._lock:
            self._refusals.append(RefusedRequest(sentence, time.time()))

    @property
    def running(self) -> list[TrackedTask]:
        """The tasks that are worked on now, the longest-running first."""
        with self._lock:
            return sorted(self._running.values(), key=lambda work: work.start)

    @property
    def refusals(self) -> list[RefusedRequest]:
        with self._lock:
            return list(self._refusals)

    @property
    def images_per_second(self) -> float:
        """The pace in images per second over the last `PACE_S` seconds, or since the start."""
        now = self._clock()
        with self._lock:
            count = sum(images for at, images in self._ends if at >= now - PACE_S)
        return count / max(1.0, min(PACE_S, now - self._started_at))

    def _end(self, work: TrackedTask) -> None:
        with self._lock:
            del self._running[id(work)]
            if work.has_prediction:
                self.done += 1
                self._ends.append((self._clock(), work.images))
            while self._ends and self._ends[0][0] < self._clock() - PACE_S:
                self._ends.popleft()
        _write(work)
        self._listener(work)


def _write(work: TrackedTask) -> None:
    stages = {f"{name}_ms": round(1000 * took) for name, took in work.stages.seconds.items()}
    more = {"facts": {"ms": round(1000 * work.seconds), **stages}}
    if work.error is None:
        log.info("Task %s: %d regions", work.task, work.regions, extra=more)
    elif work.is_incomplete:
        log.warning("Task %s: %d regions. %s", work.task, work.regions, work.error, extra=more)
    elif isinstance(work.error, BackendError):
        log.warning("Task %s has no prediction: %s", work.task, work.error, extra=more)
    else:
        log.error("Task %s has no prediction", work.task, exc_info=work.error, extra=more)
