"""Run the tasks of requests and jobs, a few at the same time and each of them once.

A request is answered by its deadline. What has not begun by then is left to a job of kind "late";
what runs goes on, and its prediction is kept in memory, for the job or the next request to take.
"""

import hashlib
import json
import logging
import math
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import msgspec
from cachetools import LRUCache
from sqlalchemy.exc import SQLAlchemyError

from backend.database.database import error_message
from backend.inference.queue import Priority
from backend.label_studio.requests import Task
from backend.prediction.images import PredictionSpec
from backend.projects.failures import FailureStore
from backend.projects.scores import ScoreStore

log = logging.getLogger(__name__)

#: Tasks of one project's batches that run at the same time: while the model has one image, the
#: next ones are fetched and the last ones drawn. Each task may hold an image in memory.
PROJECT_CONCURRENCY: Final = 4

#: Threads for the batches of all projects; as many more run tasks that somebody has opened.
_THREADS: Final = 2 * PROJECT_CONCURRENCY

#: Bytes of finished predictions that are kept, packed, and of those of one answer, as JSON.
_KEPT_BYTES: Final = 64 << 20
_ANSWER_BYTES: Final = 256 << 20

#: The longest time from Label Studio's choice of a request's tasks, those without a prediction,
#: until the request is read here, in seconds.
_CHOOSING_S: Final = 5.0

#: The entry of one task: a prediction, or an empty list, which Label Studio asks for again.
Entry = dict[str, Any] | list[Any]


@dataclass(frozen=True)
class Outcome:
    """The result of a task."""

    entry: Entry  # its prediction; ``[]`` where there is none, or none for this answer
    #: Why the task has failed; empty if it has not failed, even if its prediction is not made yet
    #: or went to another answer.
    reason: str = ""
    may_pass: bool = False  # whether a later attempt may make more of it, since a host was away
    missing: str = ""  # why its prediction lacks some of its images; empty where it lacks none


Work = Callable[[Task, PredictionSpec], Outcome]  # makes the outcome of a task


class LateTasks(Protocol):
    """The jobs that predict what requests have left over."""

    def add_late_tasks(self, project: int, tasks: Collection[int]) -> None:
        """Queue tasks of a project."""

    def late_task_ids(self, project: int, ended_within_s: float) -> set[int]:
        """Return the tasks whose job is to be run, runs, or has ended in the last seconds."""


@dataclass(eq=False)
class _MadeTask:
    """A task that runs or has run."""

    project: int | None
    opened: bool
    waiters: int = 0  # how many requests and jobs wait for it
    outcome: Outcome | None = None  # None while it runs; without the prediction, which may be large
    error: Exception | None = None  # no fault of the task: raised where the task is waited for
    packed: bytes = b""  # the prediction as compressed JSON; empty where there is none
    json_bytes: int = 0  # the size of that JSON
    handed_at: float = -math.inf  # to a request or a job last, in monotonic seconds

    @property
    def reason(self) -> str:
        return self.outcome.reason if self.outcome else ""

    def is_to_hand(self, asked: float) -> bool:
        """Return whether its prediction is there, for who asked at a monotonic time."""
        return bool(self.outcome and self.packed) and self.handed_at <= asked

    def is_nobodys(self, asked: float) -> bool:
        """Return whether nobody waits for it, has had it since, or knows why it fails."""
        return not (self.waiters or self.handed_at > asked or self.reason)

    def pack(self, prediction: Mapping[str, Any]) -> None:
        text = msgspec.json.encode(prediction)
        self.packed, self.json_bytes = zlib.compress(text, 1), len(text)

    def unpack(self) -> dict[str, Any]:
        return msgspec.json.decode(zlib.decompress(self.packed), type=dict[str, Any])


class _Run:
    """The tasks that a request or a job waits for, by the keys of their predictions."""

    def __init__(
        self, tasks: Sequence[Task], spec: PredictionSpec, work: Work, notes_failures: bool = False
    ) -> None:
        self.wanted = {_result_key(task, spec.version): task for task in tasks}
        self.spec, self.work, self.notes_failures = spec, work, notes_failures
        self.made: dict[str, _MadeTask] = {}  # those that were started, joined or kept

    @property
    def is_done(self) -> bool:
        """Whether all tasks that were started have an outcome."""
        return all(each.outcome for each in self.made.values())

    def divide(self, asked: float, most_bytes: float) -> tuple[set[str], list[Task]]:
        """Return the keys of the tasks that are handed out now, and the tasks that are late.

        Args:
            asked: the monotonic time when they were asked for.
            most_bytes: of JSON, after which none is handed out any more.
        """
        taken, late = set[str](), list[Task]()
        for key, task in self.wanted.items():
            made = self.made.get(key)
            if made is None:
                late.append(task)
            elif most_bytes > 0 and made.is_to_hand(asked):
                made.handed_at = time.monotonic()
                most_bytes -= made.json_bytes
                taken.add(key)
            elif made.is_nobodys(asked):
                late.append(task)
        return taken, late

    def raise_error(self) -> None:
        """Raise the error of a task that is not the task's own fault, if there is one."""
        for each in self.made.values():
            if each.error is not None:
                raise each.error


class TaskRunner:
    """Runs tasks, `PROJECT_CONCURRENCY` of each project's batches at the same time.

    Whoever asks for tasks starts them one by one, as threads become free. A task that runs already
    is joined.

    Args:
        failures: gets the tasks that fail; None: nothing is noted.
        late: gets the tasks that are late; None: they are dropped, and Label Studio asks again.
        deadline_s: the time for an answer, in seconds.
        scores: gets the scores of predictions that requests are answered with; None: nothing.
    """

    def __init__(
        self,
        failures: FailureStore | None = None,
        late: LateTasks | None = None,
        deadline_s: float = math.inf,
        *,
        scores: ScoreStore | None = None,
    ) -> None:
        self._scores = scores
        self._failures = failures
        self._late = late
        self._deadline_s = deadline_s
        self._threads = {
            opened: ThreadPoolExecutor(_THREADS, thread_name_prefix=name)
            for opened, name in ((False, "batch"), (True, "opened"))
        }
        self._changed = threading.Condition()
        self._runs: set[_Run] = set()
        self._running: dict[str, _MadeTask] = {}
        self._kept: LRUCache[str, _MadeTask] = LRUCache(_KEPT_BYTES, lambda made: len(made.packed))

    def run(
        self, tasks: Sequence[Task], spec: PredictionSpec, work: Work, waited_s: float = 0.0
    ) -> list[Outcome]:
        """Run the tasks of a request until the deadline; return their outcomes in order.

        Of a batch, tasks that an open job has from an earlier request are left to it. A prediction
        that has gone to another answer since Label Studio chose the tasks is left out: it would
        store both. Polls delete what is stored twice all the same. A task that somebody has opened
        is handed to everybody who opens it.

        Args:
            tasks: those of the request.
            spec: what to predict.
            work: makes the outcome of a task. Its errors are raised here.
            waited_s: how long the request has waited before, in seconds.
        """
        end = time.monotonic() + max(0.0, self._deadline_s - waited_s)
        wanted, most_bytes = tasks, math.inf
        if spec.priority is Priority.BATCH:
            of_jobs = self._late_task_ids(spec.project, waited_s + _CHOOSING_S)
            wanted, most_bytes = [task for task in tasks if task.id not in of_jobs], _ANSWER_BYTES
        run = _Run(wanted, spec, work, notes_failures=True)
        outcomes, late = self._run_until(end, run, most_bytes, waited_s + _CHOOSING_S)
        self._hand_over(spec.project, late)
        self._keep_scores(spec, {task.id: outcomes.get(key) for key, task in run.wanted.items()})
        return [outcomes.get(_result_key(task, spec.version), Outcome([])) for task in tasks]

    def run_all(
        self, tasks: Sequence[Task], spec: PredictionSpec, work: Work, halt: threading.Event
    ) -> list[Outcome]:
        """Run the tasks of a job, however long it takes; note no failures. See `run`.

        Once `halt` is set, the tasks that have not begun have an empty outcome.
        """

        def work_until_halt(task: Task, spec: PredictionSpec) -> Outcome:
            return Outcome([]) if halt.is_set() else work(task, spec)

        outcomes, _ = self._run_until(math.inf, _Run(tasks, spec, work_until_halt))
        return [outcomes.get(_result_key(task, spec.version), Outcome([])) for task in tasks]

    def count_waiting(self) -> dict[tuple[Priority, int | None], int]:
        """Count the tasks that are not done yet, each of them once, by priority and project."""
        with self._changed:
            waiting = {
                key: (run.spec.priority, run.spec.project)
                for run in self._runs
                for key in run.wanted.keys() - run.made.keys()
            }
            for key, made in self._running.items():
                waiting[key] = Priority.OPENED if made.opened else Priority.BATCH, made.project
            return dict(Counter(waiting.values()))

    # ---- requests --------------------------------------------------------------------------------

    def _run_until(
        self, end: float, run: _Run, most_bytes: float = math.inf, chosen_s: float = 0.0
    ) -> tuple[dict[str, Outcome], list[Task]]:
        """Run tasks, chosen `chosen_s` ago, until the monotonic time is `end`.

        Returns:
            The outcomes by key; those tasks that have none, and that nobody else waits for.
        """
        is_opened = run.spec.priority is Priority.OPENED
        asked = math.inf if is_opened else time.monotonic() - chosen_s
        with self._changed:
            self._runs.add(run)
            try:
                self._start_and_wait(run, end)
            finally:
                self._runs.remove(run)
                for each in run.made.values():
                    each.waiters -= 1

            taken, late = run.divide(asked, most_bytes)

        outcomes = {
            key: replace(each.outcome, entry=each.unpack() if key in taken else [])
            for key, each in run.made.items()
            if each.outcome is not None
        }
        return outcomes, late

    def _start_and_wait(self, run: _Run, end: float) -> None:
        """Start tasks as threads become free, and wait for all; the caller holds the lock."""
        queue = deque(key for key in run.wanted if not self._join(run, key))
        while True:
            while queue and (self._join(run, queue[0]) or self._start(run, queue[0])):
                queue.popleft()
            run.raise_error()
            left_s = end - time.monotonic()
            if (not queue and run.is_done) or left_s <= 0:
                return
            self._changed.wait(min(threading.TIMEOUT_MAX, left_s))

    def _join(self, run: _Run, key: str) -> bool:
        """Wait for a task that runs, or take what is kept of it; return whether there is one."""
        made = self._running.get(key) or self._kept.get(key)
        if made is None:
            return False
        made.waiters += 1
        run.made[key] = made
        return True

    def _start(self, run: _Run, key: str) -> bool:
        """Start a task, unless it came in a batch for which no thread is free."""
        project, opened = run.spec.project, run.spec.priority is Priority.OPENED
        batches = [each.project for each in self._running.values() if not each.opened]
        is_full = len(batches) >= _THREADS or batches.count(project) >= PROJECT_CONCURRENCY
        if is_full and not opened:
            return False
        run.made[key] = self._running[key] = _MadeTask(project, opened, waiters=1)
        self._threads[opened].submit(copy_context().run, self._make, run, key)
        return True

    def _make(self, run: _Run, key: str) -> None:
        task, made, outcome = run.wanted[key], run.made[key], Outcome([])
        try:
            outcome = run.work(task, run.spec)
            if isinstance(outcome.entry, dict):
                made.pack(outcome.entry)
            self._note(run, task, outcome)
        except Exception as error:  # noqa: BLE001 -- raised in the threads that wait for the task
            made.error = error
        with self._changed:
            del self._running[key]
            made.outcome = replace(outcome, entry=[])
            if made.packed and not outcome.missing and len(made.packed) <= self._kept.maxsize:
                self._kept[key] = made
            self._changed.notify_all()

    # ---- the database, which may be away ---------------------------------------------------------

    def _late_task_ids(self, project: int | None, ended_within_s: float) -> set[int]:
        if self._late is not None and project is not None:
            with _outages_logged():
                return self._late.late_task_ids(project, ended_within_s)
        return set()

    def _hand_over(self, project: int | None, late: Sequence[Task]) -> None:
        """Queue a job for tasks that are late; where that fails, Label Studio asks again."""
        ids = [task.id for task in late if isinstance(task.id, int) and task.id > 0]
        if self._late is None or project is None or not ids:
            return
        log.info("Project %d: %d tasks are late, and left to a job", project, len(ids))
        with _outages_logged():
            self._late.add_late_tasks(project, ids)

    def _keep_scores(self, spec: PredictionSpec, outcomes: Mapping[Any, Outcome | None]) -> None:
        """Keep the scores of the predictions of an answer, which Label Studio stores."""
        if self._scores is None or spec.project is None:
            return
        entries = {task: each.entry for task, each in outcomes.items() if each is not None}
        scores = {
            task: float(entry["score"])
            for task, entry in entries.items()
            if isinstance(task, int) and isinstance(entry, dict) and "score" in entry
        }
        with _outages_logged():
            self._scores.keep(spec.project, spec.version, scores)

    def _note(self, run: _Run, task: Task, outcome: Outcome) -> None:
        """Note that a task has its whole prediction, or of a request why it has not."""
        if self._failures is None or not isinstance(task.id, int):
            return
        reason = outcome.reason or outcome.missing
        with _outages_logged():  # the log of the task tracker has the reason
            if reason and run.notes_failures:
                self._failures.add([(task.id, reason)], project=run.spec.project)
            elif isinstance(outcome.entry, dict) and not reason:
                self._failures.solve([task.id])


@contextmanager
def _outages_logged() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        log.warning("The database of jobs: %s", error_message(error))


def _result_key(task: Task, version: str) -> str:
    """Return the key of a prediction; a task whose data was changed has another key."""
    parts = [task.id, task.project_id, version, dict(task.data)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]
