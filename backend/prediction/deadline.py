"""Answer by a deadline; tasks that are not done by then go on, and their predictions are kept.

They wait in the outbox, from which the next request takes them, or they are written through Label
Studio's API. A task that somebody has opened runs before the tasks of batches.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import replace
from typing import Any, Final, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from backend.database.database import error_message
from backend.label_studio.requests import Task
from backend.prediction.failures import FailureStore
from backend.prediction.outbox import PredictionOutbox, result_key
from backend.prediction.task_runner import Outcome, QueuedTask, TaskRunner, Work

log = logging.getLogger(__name__)

T = TypeVar("T")
Key = TypeVar("Key", str, int)

#: Bytes of the tasks that no request waits for any more, at most about so many: see `_size`.
_MOST_LATE_BYTES: Final = 256 << 20

#: Bytes of a number, or of the place of a value in a list or an object, about so many.
_VALUE_BYTES: Final = 50

#: Interval of looking for results that another backend makes, and whether the client has gone, in
#: seconds.
_POLL_S: Final = 0.5

#: How long after its deadline an answer may still be on its way, in seconds.
_ANSWER_MARGIN_S: Final = 10.0


class DeadlineRunner(TaskRunner):
    """Runs tasks, answers by a deadline, and keeps predictions that are late.

    Args:
        failures: gets the tasks that fail.
        outbox: keeps predictions until Label Studio has them.
        deadline_s: the time for an answer, in seconds.
    """

    def __init__(self, failures: FailureStore, outbox: PredictionOutbox, deadline_s: float) -> None:
        super().__init__()
        self._failures = failures
        self._outbox = outbox
        self._deadline_s = deadline_s
        self._in_progress: dict[str, QueuedTask] = {}

    def run(
        self,
        tasks: Sequence[Task],
        version: str,
        project: int | None,
        work: Work,
        waited_s: float = 0.0,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> list[Outcome]:
        """Run tasks and wait until the deadline; return their outcomes in order.

        A task that runs already, here or in another backend on the database, is waited for and
        does not run a second time. Failures are recorded. While the database is away, the tasks run
        without it. The time that their request has waited before counts towards the deadline. Where
        nobody will read the outcomes, the outbox keeps the predictions. See `TaskRunner.run` for
        the arguments.
        """
        deadline_s = max(0.0, self._deadline_s - waited_s)
        work, end = self._recording_failures(work, project), time.monotonic() + deadline_s
        try:
            return self.run_until(deadline_s, tasks, version, project, work, is_gone=is_gone)
        except SQLAlchemyError as error:
            _log_outage(error)
            return self._run_unkept(tasks, project, work, end, is_gone)

    def run_opened(
        self,
        task: Task,
        version: str,
        project: int | None,
        work: Work,
        waited_s: float = 0.0,
    ) -> Outcome:
        """Run a task that somebody has opened, before the tasks of batches; return its outcome.

        The time that its request has waited before counts towards the deadline.

        It is handed to everybody who opens the task, even if another answer had it already. While
        the database is away, the task runs without it. See `TaskRunner.run_opened` for the
        arguments.
        """
        try:
            return self.run_until(
                max(0.0, self._deadline_s - waited_s),
                *([task], version, project, self._recording_failures(work, project)),
                opened=True,
            )[0]
        except SQLAlchemyError as error:
            _log_outage(error)
            return work(task)

    def run_until(
        self,
        deadline_s: float,
        tasks: Sequence[Task],
        version: str,
        project: int | None,
        work: Work,
        opened: bool = False,
        whole: bool = False,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> list[Outcome]:
        """Run tasks with a deadline of their own; return their outcomes, record no failures.

        Args:
            deadline_s: the time for the answer, in seconds.
            tasks: of one project.
            version: the ``model_version`` of their predictions.
            project: the tasks' project.
            work: makes the outcome of a task; an error that it raises is raised here.
            opened: whether somebody has opened the tasks: see `run_opened`.
            whole: take all predictions, however large they are: see `PredictionOutbox.take`.
            is_gone: tells whether nobody will read the outcomes; then the wait ends, and no
                prediction is taken.

        Raises:
            SQLAlchemyError: the database of the outbox is away.
        """
        asked, end = self._outbox.now, time.monotonic() + deadline_s
        by_key = {result_key(task, version): task for task in tasks}
        due = asked + deadline_s + _ANSWER_MARGIN_S
        queued: dict[str, QueuedTask] = {}
        try:
            self._join_or_start(queued, by_key, version, project, work, due, opened)
            _wait_for_outcomes(queued, end, is_gone)
            while (
                (others := self._running_elsewhere(by_key, queued))
                and time.monotonic() < end
                and not is_gone()
            ):
                if opened:  # there, it may be the last of a long queue
                    return [work(task) for task in tasks]
                # Another backend may have died: its claims end, and its tasks start here.
                self._join_or_start(queued, others, version, project, work, due)
                time.sleep(max(0.0, min(_POLL_S, end - time.monotonic())))
            done = _wait_for_outcomes(queued, end, is_gone)
        finally:
            self._leave(queued.values())
        late = _without(queued, done)
        if late:
            self._let_go_on(late, project)
        if is_gone():
            log.info("Project %s: the client has gone; its predictions are kept", project)
            return [Outcome([]) for _ in tasks]
        # Predictions are taken last, so that the answer leaves at once with all that are made.
        taken = self._outbox.take(by_key, math.inf if opened else asked, whole)
        outcomes = done | {key: Outcome(prediction) for key, prediction in taken.items()}
        return [outcomes.get(result_key(task, version), Outcome([])) for task in tasks]

    def _leave(self, queued: Iterable[QueuedTask]) -> None:
        """Wait for tasks no more."""
        with self._lock:
            for each in queued:
                each.waiters -= 1

    def _let_go_on(self, late: Mapping[str, QueuedTask], project: int | None) -> None:
        """Have tasks that nobody waits for written when they are done, or drop them.

        Those are dropped that there is no room for, unless somebody has opened them: requests can
        come faster than their tasks are done, and each task that waits has its data.
        """
        dropped: list[QueuedTask] = []
        with self._lock:
            left = [each for each in late.values() if not each.waiters]
            for each in left:
                each.due = 0.0
            going_on = (each for each in self._in_progress.values() if not each.waiters)
            if sum(each.size_bytes for each in going_on) > _MOST_LATE_BYTES:
                dropped = self._remove_waiting(each for each in left if not each.opened)
                for each in dropped:
                    self._in_progress.pop(each.key, None)
        for each in dropped:
            each.outcome.set_result(Outcome([]))
        self._outbox.discard(each.key for each in dropped)
        if len(late) > len(dropped):
            go_on = len(late) - len(dropped)
            log.info("Project %s: %d tasks go on after the deadline", project, go_on)
        if dropped:
            log.warning(
                "Project %s: too many tasks go on after their deadline; %d are left for the next "
                "time",
                project,
                len(dropped),
            )

    def _run_unkept(
        self,
        tasks: Sequence[Task],
        project: int | None,
        work: Work,
        end: float,
        is_gone: Callable[[], bool],
    ) -> list[Outcome]:
        """Run tasks without the outbox until the monotonic time is `end`; return their outcomes.

        A prediction that is late, or whose client has gone, would be lost, so that tasks which
        still wait then are dropped: Label Studio asks for them again.
        """
        queued = dict(enumerate(QueuedTask(task, project, work) for task in tasks))
        self._enqueue(queued.values())
        try:
            done = _wait_for_outcomes(queued, end, is_gone)
        finally:
            with self._lock:
                self._remove_waiting(queued.values())
        return [done.get(number, Outcome([])) for number in queued]

    def _remove_waiting(self, queued: Iterable[QueuedTask]) -> list[QueuedTask]:
        """Remove those of some tasks that have not begun, and return them.

        The caller holds the lock.
        """
        unwanted, removed = set(map(id, queued)), list[QueuedTask]()
        for queue in self._queues.values():
            removed += [each for each in queue if id(each) in unwanted]
            kept = [each for each in queue if id(each) not in unwanted]
            queue.clear()
            queue.extend(kept)
        return removed

    def _recording_failures(self, work: Work, project: int | None) -> Work:
        """Return work that also adds a task without a whole prediction to the failure store."""

        def recording(task: Task) -> Outcome:
            outcome = work(task)
            reason = outcome.reason or outcome.missing
            if reason and isinstance(task.id, int):
                try:
                    self._failures.add([(task.id, reason)], project=project)
                except SQLAlchemyError as error:  # the log of the task tracker has the reason
                    _log_outage(error)
            return outcome

        return recording

    def _join_or_start(
        self,
        queued: dict[str, QueuedTask],
        tasks: Mapping[str, Task],
        version: str,
        project: int | None,
        work: Work,
        due: float,
        opened: bool = False,
    ) -> None:
        """Claim and start the tasks that no backend runs; add all that run or wait here."""
        with self._lock:
            joined = {key: self._in_progress[key] for key in tasks if key in self._in_progress}
            queued |= joined
            for each in joined.values():
                each.due = max(each.due, due)
                each.waiters += 1
                if opened:
                    self._bring_forward(each, work)
        claimed = self._outbox.claim(_without(tasks, joined), project, version)
        started = {
            key: QueuedTask(task, project, work, key, due, opened, _size(task), waiters=1)
            for key, task in tasks.items()
            if key in claimed
        }
        with self._lock:
            self._in_progress |= started
        queued |= started
        self._enqueue(started.values())

    def _bring_forward(self, queued: QueuedTask, work: Work) -> None:
        """Move a task of a batch that still waits to the opened tasks of its project.

        The caller holds the lock.
        """
        queue = self._queues.get(queued.queue_key)
        if queue and queued in queue:
            queue.remove(queued)
            queued.work, queued.opened = work, True
            self._queues.setdefault(queued.queue_key, deque()).append(queued)
            self._submit_next(opened=True)

    def _running_elsewhere(
        self, tasks: Mapping[str, Task], here: Container[str]
    ) -> dict[str, Task]:
        """Return the tasks that neither run here nor have a result in the outbox."""
        others = _without(tasks, here)
        return _without(others, self._outbox.find_made(others))

    def _make_outcome(self, queued: QueuedTask) -> Outcome:
        """Make the outcome of a task, and keep its prediction before any request sees it."""
        outcome = super()._make_outcome(queued)
        if not queued.key:
            return outcome
        if isinstance(outcome.entry, dict):
            self._outbox.add(queued.key, outcome.entry, queued.due)
            if isinstance(queued.task.id, int) and not outcome.missing:
                self._failures.solve([queued.task.id])
        else:
            self._outbox.discard([queued.key])
        with self._lock:
            self._in_progress.pop(queued.key, None)
        return replace(outcome, entry=[])  # a prediction may be large: only the outbox keeps it

    def _fail(self, queued: Sequence[QueuedTask], error: Exception) -> None:
        try:
            self._outbox.abandon(each.key for each in queued if each.key)
        except SQLAlchemyError as lost:
            log.warning("%s; %d claims end by themselves", error_message(lost), len(queued))
        with self._lock:
            for each in queued:
                self._in_progress.pop(each.key, None)
        super()._fail(queued, error)


def _log_outage(error: SQLAlchemyError) -> None:
    log.warning("The database of waiting predictions: %s", error_message(error))


def _wait_for_outcomes(
    queued: Mapping[Key, QueuedTask], end: float, is_gone: Callable[[], bool]
) -> dict[Key, Outcome]:
    """Wait until tasks are done, the monotonic time is `end`, or nobody reads their outcomes.

    Returns those there are, by key. An error that is no fault of one task is raised.
    """
    outcomes = [each.outcome for each in queued.values()]
    while True:
        wait(outcomes, max(0.0, min(_POLL_S, end - time.monotonic())))
        if all(each.done() for each in outcomes) or time.monotonic() >= end or is_gone():
            break
    return {key: each.outcome.result() for key, each in queued.items() if each.outcome.done()}


def _without(mapping: Mapping[str, T], keys: Container[str]) -> dict[str, T]:
    return {key: value for key, value in mapping.items() if key not in keys}


def _size(task: Task) -> int:
    """Return about how many bytes a task takes: its texts and values, and 1 kB for the rest.

    >>> _size(Task(1, 7, {"image": "data:image/png;base64,"}))
    1077
    >>> _size(Task(1, 7, {"pages": [{"image": "data:image/png;base64,"}, 3]}))
    1232
    """
    size, left = 1000, list[Any]([task.data])
    while left:
        value = left.pop()
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, Mapping):
            size += _VALUE_BYTES * len(value)
            left += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            size += _VALUE_BYTES * len(value)
            left += value
    return size
