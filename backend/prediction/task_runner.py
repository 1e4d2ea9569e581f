"""Run the tasks of requests, a few of them at the same time."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Final

from backend.label_studio.requests import Task

#: Tasks of one project's batches that run at the same time: while the model has one image, the
#: next ones are fetched and the last ones drawn. Each task may hold an image in memory.
PROJECT_CONCURRENCY: Final = 4

#: Threads for the batches of all projects; as many more run tasks that somebody has opened.
_THREADS: Final = 2 * PROJECT_CONCURRENCY

#: The entry of one task: a prediction, or an empty list, which Label Studio asks for again.
Entry = dict[str, Any] | list[Any]


@dataclass(frozen=True)
class Outcome:
    """The result of a task.

    Attributes:
        entry: its prediction; ``[]`` where there is none, or none for this answer.
        reason: why the task has failed; empty if it has not failed, even if its prediction is
            not made yet or went to another answer.
        may_pass: whether a later attempt may succeed, since a host was away.
        missing: why its prediction lacks some of its images; empty where it lacks none.
    """

    entry: Entry
    reason: str = ""
    may_pass: bool = False
    missing: str = ""


#: Makes the outcome of a task.
Work = Callable[[Task], Outcome]

#: The project of a queue, and whether its tasks were opened or came in a batch.
_QueueKey = tuple[int | None, bool]


@dataclass(eq=False)
class QueuedTask:
    """A task that waits or runs.

    Attributes:
        task: the task.
        project: its project.
        work: makes its outcome.
        key: the key of its result in the outbox; empty where there is no outbox.
        due: the time from which its prediction may be written through the API, in seconds since
            the epoch.
        opened: whether somebody has opened the task.
        size_bytes: about how much memory its task takes, where that is counted.
        waiters: how many requests wait for it, where that is counted.
        outcome: is set when the task is done.
        context: context variables of the request that asked for the task first.
    """

    task: Task
    project: int | None
    work: Work
    key: str = ""
    due: float = 0.0
    opened: bool = False
    size_bytes: int = 0
    waiters: int = 0
    outcome: Future[Outcome] = field(default_factory=Future)
    context: Context = field(default_factory=copy_context)

    @property
    def queue_key(self) -> _QueueKey:
        """The queue in which the task waits."""
        return self.project, self.opened


class TaskRunner:
    """Runs the tasks of batches, `PROJECT_CONCURRENCY` of each project at the same time.

    A task leaves its queue when a thread is free for it.
    """

    def __init__(self) -> None:
        self._threads = {
            opened: ThreadPoolExecutor(_THREADS, thread_name_prefix=name)
            for opened, name in ((False, "batch"), (True, "opened"))
        }
        self._lock = threading.Lock()
        self._queues: dict[_QueueKey, deque[QueuedTask]] = {}
        self._running: Counter[_QueueKey] = Counter()

    def run(
        self,
        tasks: Sequence[Task],
        version: str,
        project: int | None,
        work: Work,
        waited_s: float = 0.0,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> list[Outcome]:
        """Run tasks and wait for all of them; return their outcomes in order.

        Args:
            tasks: of one project.
            version: the ``model_version`` of their predictions.
            project: the tasks' project; projects take turns.
            work: makes the outcome of a task; an error that it raises is raised here.
            waited_s: how long their request has waited before, in seconds.
            is_gone: tells whether nobody will read the outcomes.
        """
        queued = [QueuedTask(task, project, work) for task in tasks]
        self._enqueue(queued)
        return [each.outcome.result() for each in queued]

    def run_opened(
        self,
        task: Task,
        version: str,
        project: int | None,
        work: Work,
        waited_s: float = 0.0,
    ) -> Outcome:
        """Run a task that somebody has opened; return its outcome.

        Args:
            task, version, project, work, waited_s: see `run`.
        """
        return work(task)

    def count_waiting(self) -> dict[int | None, int]:
        """Count the tasks that are not done yet, by project."""
        counts: Counter[int | None] = Counter()
        with self._lock:
            for (project, _), queue in self._queues.items():
                counts[project] += len(queue)
            for (project, _), running in self._running.items():
                counts[project] += running
        return dict(+counts)

    def _enqueue(self, queued: Iterable[QueuedTask]) -> None:
        with self._lock:
            for each in queued:
                self._queues.setdefault(each.queue_key, deque()).append(each)
                self._submit_next(each.opened)

    def _submit_next(self, opened: bool) -> None:
        """Submit waiting tasks to the threads that are free, up to the limit of a project.

        The project with the fewest tasks at work comes first; of equal ones, the one whose last
        turn was longest ago. The caller holds the lock.
        """
        while sum(n for key, n in self._running.items() if key[1] == opened) < _THREADS:
            waiting = [
                key
                for key, queue in self._queues.items()
                if queue and key[1] == opened and self._running[key] < PROJECT_CONCURRENCY
            ]
            if not waiting:
                return
            key = min(waiting, key=self._running.__getitem__)
            queue = self._queues.pop(key)
            queued = queue.popleft()
            if queue:
                self._queues[key] = queue  # behind the other projects
            self._running[key] += 1
            self._threads[opened].submit(queued.context.run, self._run_queued, queued)

    def _run_queued(self, queued: QueuedTask) -> None:
        key = queued.queue_key
        try:
            outcome = self._make_outcome(queued)
        except Exception as error:  # noqa: BLE001 -- raised in the thread that waits for the task
            # Such an error is no fault of one task: the tasks behind it would fail one by one.
            self._fail([queued, *self._empty_queue(key)], error)
        else:
            queued.outcome.set_result(outcome)
        finally:
            with self._lock:
                self._running[key] -= 1
                self._submit_next(queued.opened)

    def _make_outcome(self, queued: QueuedTask) -> Outcome:
        return queued.work(queued.task)

    def _empty_queue(self, key: _QueueKey) -> list[QueuedTask]:
        """Remove all tasks of a queue and return them."""
        with self._lock:
            return list(self._queues.pop(key, ()))

    def _fail(self, queued: Sequence[QueuedTask], error: Exception) -> None:
        for each in queued:
            each.outcome.set_exception(error)
