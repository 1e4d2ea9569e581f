"""Run the tasks of requests and jobs, a few at the same time and each of them once.

A request is answered by its deadline. What has not begun by then is left to a job of kind "late";
what runs goes on, and its prediction is kept in memory, for the job or the next request to take.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from cachetools import LRUCache
from sqlalchemy.exc import SQLAlchemyError

from backend.database.database import error_message
from backend.label_studio.requests import Task
from backend.prediction.failures import FailureStore

log = logging.getLogger(__name__)

#: Tasks of one project's batches that run at the same time: while the model has one image, the
#: next ones are fetched and the last ones drawn. Each task may hold an image in memory.
PROJECT_CONCURRENCY: Final = 4

#: Threads for the batches of all projects; as many more run tasks that somebody has opened.
_THREADS: Final = 2 * PROJECT_CONCURRENCY

#: Bytes of finished predictions that are kept, packed, and of those of one answer, as JSON.
_KEPT_BYTES: Final = 64 << 20
_ANSWER_BYTES: Final = 256 << 20

#: How often a request that waits asks whether its client has gone, in seconds.
_POLL_S: Final = 0.5

#: The longest time from Label Studio's choice of a request's tasks, those without a prediction,
#: until the request is read here, in seconds.
_CHOOSING_S: Final = 5.0

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


class LateTasks(Protocol):
    """The jobs that predict what requests have left over."""

    def add_late_tasks(self, project: int, tasks: Collection[int]) -> None:
        """Queue tasks of a project."""

    def late_task_ids(self, project: int, ended_within_s: float) -> set[int]:
        """Return the tasks whose job is to be run, runs, or has ended in the last seconds."""


@dataclass(eq=False)
class _FinishedPrediction:
    """A prediction in little memory.

    Attributes:
        packed: compressed JSON.
        json_bytes: the size of that JSON.
        handed_at: when it was handed to a request or a job last, in monotonic seconds.
    """

    packed: bytes
    json_bytes: int
    handed_at: float = -math.inf

    @classmethod
    def of(cls, prediction: Mapping[str, Any]) -> _FinishedPrediction:
        text = json.dumps(prediction, separators=(",", ":")).encode()
        return cls(zlib.compress(text, 1), len(text))

    def unpack(self) -> dict[str, Any]:
        prediction: dict[str, Any] = json.loads(zlib.decompress(self.packed))
        return prediction


@dataclass(eq=False)
class _QueuedTask:
    """A task that waits or runs.

    Attributes:
        outcome: is set when the task is done; without the prediction, which may be large.
        context: context variables of the request that asked for the task first.
    """

    key: str
    task: Task
    project: int | None
    work: Work
    opened: bool = False
    waiters: int = 1
    outcome: Future[Outcome] = field(default_factory=Future)
    finished: _FinishedPrediction | None = None
    context: Context = field(default_factory=copy_context)

    @property
    def queue_key(self) -> _QueueKey:
        return self.project, self.opened


class TaskRunner:
    """Runs tasks, `PROJECT_CONCURRENCY` of each project's batches at the same time.

    A task leaves its queue when a thread is free for it. One that waits or runs already is joined.

    Args:
        failures: gets the tasks that fail; None: nothing is noted.
        late: gets the tasks that are late; None: they are dropped, and Label Studio asks again.
        deadline_s: the time for an answer, in seconds.
        can_write: whether jobs reach Label Studio; while they do not, no task is left to them.
    """

    def __init__(
        self,
        failures: FailureStore | None = None,
        late: LateTasks | None = None,
        deadline_s: float = math.inf,
        can_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._can_write = can_write
        self._failures = failures
        self._late = late
        self._deadline_s = deadline_s
        self._threads = {
            opened: ThreadPoolExecutor(_THREADS, thread_name_prefix=name)
            for opened, name in ((False, "batch"), (True, "opened"))
        }
        self._lock = threading.Lock()
        self._queues: dict[_QueueKey, deque[_QueuedTask]] = {}
        self._running: Counter[_QueueKey] = Counter()
        self._in_progress: dict[str, _QueuedTask] = {}
        self._kept: LRUCache[str, _FinishedPrediction] = LRUCache(
            _KEPT_BYTES, lambda finished: len(finished.packed)
        )

    def run(
        self,
        tasks: Sequence[Task],
        version: str,
        project: int | None,
        work: Work,
        waited_s: float = 0.0,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> list[Outcome]:
        """Run the tasks of a batch until the deadline; return their outcomes in order.

        Tasks that an open job has from an earlier request are left to it. A prediction that has
        gone to another answer since this request came is left out: Label Studio would store both.

        Args:
            version: the ``model_version`` of their predictions.
            work: makes the outcome of a task; an error that it raises is raised here.
            waited_s: how long their request has waited before, in seconds.
            is_gone: tells whether nobody will read the outcomes.
        """
        end = time.monotonic() + max(0.0, self._deadline_s - waited_s)
        skipped = self._late_task_ids(project, waited_s + _CHOOSING_S)
        keys = [_result_key(task, version) for task in tasks]
        wanted = {key: t for key, t in zip(keys, tasks, strict=True) if t.id not in skipped}
        work = self._noting_failures(work, project)
        outcomes, late = self._run_until(
            end, wanted, project, work, max_bytes=_ANSWER_BYTES, is_gone=is_gone
        )
        self._hand_over(project, late)
        return [outcomes.get(key, Outcome([])) for key in keys]

    def run_opened(
        self,
        task: Task,
        version: str,
        project: int | None,
        work: Work,
        waited_s: float = 0.0,
    ) -> Outcome:
        """Run a task that somebody has opened, before the tasks of batches; return its outcome.

        It is handed to everybody who opens the task, even if another answer had it already.
        """
        end = time.monotonic() + max(0.0, self._deadline_s - waited_s)
        wanted, work = {_result_key(task, version): task}, self._noting_failures(work, project)
        outcomes, late = self._run_until(end, wanted, project, work, opened=True)
        self._hand_over(project, late)
        return next(iter(outcomes.values()), Outcome([]))

    def run_all(
        self, tasks: Sequence[Task], version: str, project: int | None, work: Work
    ) -> list[Outcome]:
        """Run the tasks of a job, however long it takes; note no failures. See `run`."""
        keys = [_result_key(task, version) for task in tasks]
        wanted = dict(zip(keys, tasks, strict=True))
        outcomes, _ = self._run_until(math.inf, wanted, project, work)
        return [outcomes.get(key, Outcome([])) for key in keys]

    def count_waiting(self) -> dict[int | None, int]:
        """Count the tasks that are not done yet, by project."""
        counts: Counter[int | None] = Counter()
        with self._lock:
            for (project, _), queue in self._queues.items():
                counts[project] += len(queue)
            for (project, _), running in self._running.items():
                counts[project] += running
        return dict(+counts)

    # ---- requests --------------------------------------------------------------------------------

    def _run_until(
        self,
        end: float,
        wanted: Mapping[str, Task],
        project: int | None,
        work: Work,
        *,
        opened: bool = False,
        max_bytes: float = math.inf,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> tuple[dict[str, Outcome], list[Task]]:
        """Run tasks until the monotonic time is `end`.

        Returns:
            The outcomes by key; those tasks that have none, and that nobody else waits for.
        """
        asked = math.inf if opened else time.monotonic()
        finished, queued = self._join_or_start(wanted, project, work, opened)
        try:
            _wait([each.outcome for each in queued.values()], end, is_gone)
            outcomes = {k: q.outcome.result() for k, q in queued.items() if q.outcome.done()}
        finally:
            left_to_others = self._leave(queued)
        finished |= {k: each.finished for k, each in queued.items() if each.finished is not None}
        gone_elsewhere = {k for k, each in finished.items() if each.handed_at > asked}
        taken = set[str]()
        if not is_gone():
            taken = self._take(finished, asked, max_bytes)
        for key in taken:
            outcome = outcomes.get(key, Outcome([]))
            outcomes[key] = replace(outcome, entry=finished[key].unpack())
        settled = {k for k, each in outcomes.items() if each.reason} | taken | gone_elsewhere
        return outcomes, [wanted[k] for k in wanted.keys() - settled - left_to_others]

    def _join_or_start(
        self, wanted: Mapping[str, Task], project: int | None, work: Work, opened: bool
    ) -> tuple[dict[str, _FinishedPrediction], dict[str, _QueuedTask]]:
        """Return the predictions that are kept, and queue the other tasks unless they are."""
        finished: dict[str, _FinishedPrediction] = {}
        queued: dict[str, _QueuedTask] = {}
        with self._lock:
            for key, task in wanted.items():
                if (kept := self._kept.get(key)) is not None:
                    finished[key] = kept
                elif (joined := self._in_progress.get(key)) is not None:
                    joined.waiters += 1
                    queued[key] = joined
                    if opened:
                        self._bring_forward(joined, work)
                else:
                    queued[key] = started = _QueuedTask(key, task, project, work, opened)
                    self._in_progress[key] = started
                    self._queues.setdefault(started.queue_key, deque()).append(started)
            self._submit_next(opened)
        return finished, queued

    def _bring_forward(self, queued: _QueuedTask, work: Work) -> None:
        """Move a task of a batch that still waits to the opened ones; the caller holds the lock."""
        if self._remove_waiting({queued.key}):
            queued.work, queued.opened = work, True
            self._queues.setdefault(queued.queue_key, deque()).append(queued)

    def _leave(self, queued: Mapping[str, _QueuedTask]) -> set[str]:
        """Wait no more; drop tasks that nobody waits for. Return the keys that others wait for."""
        with self._lock:
            for each in queued.values():
                each.waiters -= 1
            for each in self._remove_waiting({k for k, each in queued.items() if not each.waiters}):
                del self._in_progress[each.key]
            return {key for key, each in queued.items() if each.waiters}

    def _remove_waiting(self, keys: Container[str]) -> list[_QueuedTask]:
        """Remove tasks that have not begun from their queues; the caller holds the lock."""
        removed: list[_QueuedTask] = []
        for queue in self._queues.values():
            removed += [each for each in queue if each.key in keys]
            kept = [each for each in queue if each.key not in keys]
            queue.clear()
            queue.extend(kept)
        return removed

    def _take(
        self, finished: Mapping[str, _FinishedPrediction], asked: float, max_bytes: float
    ) -> set[str]:
        """Mark predictions as handed out; return their keys.

        Those are left that went elsewhere since the monotonic time `asked`, or for which the answer
        has no room.
        """
        taken: set[str] = set()
        with self._lock:
            for key, each in finished.items():
                if each.handed_at <= asked and max_bytes > 0:
                    each.handed_at = time.monotonic()
                    max_bytes -= each.json_bytes
                    taken.add(key)
        return taken

    # ---- the database, which may be away ---------------------------------------------------------

    def _late_task_ids(self, project: int | None, ended_within_s: float) -> set[int]:
        if self._late is None or project is None or not self._can_write():
            return set()
        try:
            return self._late.late_task_ids(project, ended_within_s)
        except SQLAlchemyError as error:
            _log_outage(error)
            return set()

    def _hand_over(self, project: int | None, late: Sequence[Task]) -> None:
        """Queue a job for tasks that are late; where that fails, Label Studio asks again."""
        ids = [task.id for task in late if isinstance(task.id, int) and task.id > 0]
        if self._late is None or project is None or not ids:
            return
        log.info("Project %d: %d tasks are late, and left to a job", project, len(ids))
        try:
            self._late.add_late_tasks(project, ids)
        except SQLAlchemyError as error:
            _log_outage(error)

    def _noting_failures(self, work: Work, project: int | None) -> Work:
        """Return work that also adds a task without a whole prediction to the failure store."""

        def noting(task: Task) -> Outcome:
            outcome = work(task)
            reason = outcome.reason or outcome.missing
            if reason and isinstance(task.id, int) and self._failures is not None:
                try:
                    self._failures.add([(task.id, reason)], project=project)
                except SQLAlchemyError as error:  # the log of the task tracker has the reason
                    _log_outage(error)
            return outcome

        return noting

    def _note_success(self, task: Task) -> None:
        if isinstance(task.id, int) and self._failures is not None:
            try:
                self._failures.solve([task.id])
            except SQLAlchemyError as error:
                _log_outage(error)

    # ---- threads ---------------------------------------------------------------------------------

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

    def _run_queued(self, queued: _QueuedTask) -> None:
        key = queued.queue_key
        try:
            outcome = queued.work(queued.task)
            if isinstance(outcome.entry, dict):
                queued.finished = _FinishedPrediction.of(outcome.entry)
        except Exception as error:  # noqa: BLE001 -- raised in the thread that waits for the task
            # Such an error is no fault of one task: the tasks behind it would fail one by one.
            self._fail([queued, *self._empty_queue(key)], error)
        else:
            if queued.finished is not None and not outcome.missing:
                self._note_success(queued.task)
            self._keep(queued)
            queued.outcome.set_result(replace(outcome, entry=[]))
        finally:
            with self._lock:
                self._running[key] -= 1
                self._submit_next(queued.opened)

    def _keep(self, queued: _QueuedTask) -> None:
        with self._lock:
            if queued.finished is not None and len(queued.finished.packed) <= _KEPT_BYTES:
                self._kept[queued.key] = queued.finished
            self._in_progress.pop(queued.key, None)

    def _empty_queue(self, key: _QueueKey) -> list[_QueuedTask]:
        """Remove all tasks of a queue and return them."""
        with self._lock:
            return list(self._queues.pop(key, ()))

    def _fail(self, queued: Sequence[_QueuedTask], error: Exception) -> None:
        with self._lock:
            for each in queued:
                self._in_progress.pop(each.key, None)
        for each in queued:
            each.outcome.set_exception(error)


def _log_outage(error: SQLAlchemyError) -> None:
    log.warning("The database of jobs: %s", error_message(error))


def _wait(outcomes: Iterable[Future[Outcome]], end: float, is_gone: Callable[[], bool]) -> None:
    """Wait until tasks are done, the monotonic time is `end`, or nobody reads their outcomes."""
    left = set(outcomes)
    while left and time.monotonic() < end and not is_gone():
        left = wait(left, max(0.0, min(_POLL_S, end - time.monotonic()))).not_done


def _result_key(task: Task, version: str) -> str:
    """Return the key of a prediction; a task whose data was changed has another key.

    >>> tasks = [Task(1, 7, {"image": image}) for image in ("a.png", "b.png", "a.png")]
    >>> one, other, same = (_result_key(task, "v1") for task in tasks)
    >>> one == same, one == other, one == _result_key(tasks[0], "v2")
    (True, False, False)
    """
    parts = [task.id, task.project_id, version, dict(task.data)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]
