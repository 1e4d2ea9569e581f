"""Answer by a deadline; tasks that are not done by then go on and wait in the outbox.

From the outbox, the next request takes them, or they are written through Label Studio's API. A task
that somebody has opened is predicted before those of batches.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import replace
from typing import Final, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from backend.database.database import error_message
from backend.label_studio.requests import Task
from backend.prediction.failures import FailureStore
from backend.prediction.outbox import PredictionOutbox, result_key
from backend.prediction.task_runner import Item, Outcome, TaskRunner, Work

log = logging.getLogger(__name__)

T = TypeVar("T")


#: How often a result that another backend makes is looked for.
_POLL_S: Final = 0.5

#: How long after its deadline an answer may still be on its way.
_ANSWERED_S: Final = 10.0


class DeadlineRunner(TaskRunner):
    """Answers in time, and loses nothing.

    Args:
        failures: where failures are kept.
        outbox: where what is made is kept until Label Studio has it.
        deadline_s: how long an answer may take.
    """

    def __init__(self, failures: FailureStore, outbox: PredictionOutbox, deadline_s: float) -> None:
        super().__init__()
        self._failures = failures
        self._outbox = outbox
        self._deadline_s = deadline_s
        self._making: dict[str, Item] = {}

    def outcomes(
        self, tasks: Sequence[Task], version: str, project: int | None, work: Work
    ) -> list[Outcome]:
        """What becomes of tasks by the deadline, in their order; see `TaskRunner.outcomes`.

        A task that is being made already, here or by another backend on the same database, is
        joined, and not made a second time. What fails is noted in the store.
        """
        return self.until(self._deadline_s, tasks, version, project, self._noting(work))

    def opened(self, task: Task, version: str, project: int | None, work: Work) -> Outcome:
        """Likewise, for a task that somebody has opened: before all those of batches.

        Two who open it at the same moment both get it. They can do without the database.
        """
        noting = self._noting(work)
        try:
            return self.until(self._deadline_s, [task], version, project, noting, opened=True)[0]
        except SQLAlchemyError as error:
            log.warning("The database of waiting predictions: %s", error_message(error))
            return work(task)

    def until(
        self,
        deadline_s: float,
        tasks: Sequence[Task],
        version: str,
        project: int | None,
        work: Work,
        opened: bool = False,
        whole: bool = False,
    ) -> list[Outcome]:
        """The same with another deadline, and nothing noted.

        Args:
            deadline_s: how long it may take.
            tasks: of one project.
            version: see `TaskRunner.outcomes`, likewise what follows.
            project: whose tasks.
            work: what makes an outcome.
            opened: see `opened`.
            whole: not in parts where predictions are large: see `PredictionOutbox.take`.
        """
        asked, end = self._outbox.now, time.monotonic() + deadline_s
        by_key = {result_key(task, version): task for task in tasks}
        due = asked + deadline_s + _ANSWERED_S
        items = self._begin(by_key, version, project, work, due, opened)
        _done(items, end)
        while (others := self._elsewhere(by_key, items)) and time.monotonic() < end:
            if opened:  # it may be the last of a long line there
                return [work(task) for task in tasks]
            items |= self._begin(others, version, project, work, due)  # what another left undone
            time.sleep(max(0.0, min(_POLL_S, end - time.monotonic())))
        done = _done(items, end)
        open_ = _without(items, done)
        for item in open_.values():
            item.due = 0.0
        if open_:
            log.info("Project %s: %d tasks go on after the deadline", project, len(open_))
        # At the end, so that it is on its way at once; who looks at a task gets it in any case.
        taken = self._outbox.take(by_key, math.inf if opened else asked, whole)
        outcomes = done | {key: Outcome(prediction) for key, prediction in taken.items()}
        return [outcomes.get(result_key(task, version), Outcome([])) for task in tasks]

    def _noting(self, work: Work) -> Work:
        def noting(task: Task) -> Outcome:
            outcome = work(task)
            if outcome.reason and isinstance(task.id, int):
                self._failures.add([(task.id, outcome.reason)])
            return outcome

        return noting

    def _begin(
        self,
        tasks: Mapping[str, Task],
        version: str,
        project: int | None,
        work: Work,
        due: float,
        opened: bool = False,
    ) -> dict[str, Item]:
        """Have tasks made, those that nobody makes; with those that are being made here already."""
        with self._lock:
            joined = {key: self._making[key] for key in tasks if key in self._making}
            for item in joined.values():
                item.due = max(item.due, due)
                if opened:
                    self._bring_forward(item, work)
        claimed = self._outbox.claim(_without(tasks, joined), project, version)
        begun = {
            key: Item(task, project, work, key, due, opened)
            for key, task in tasks.items()
            if key in claimed
        }
        with self._lock:
            self._making |= begun
        self._start(begun.values())
        return joined | begun

    def _bring_forward(self, item: Item, work: Work) -> None:
        """Let a task of a batch be made at once, if it still waits; under the lock."""
        line = self._lines.get(item.line)
        if line and item in line:
            line.remove(item)
            item.work, item.opened = work, True
            self._lines.setdefault(item.line, deque()).append(item)
            self._fill(item.line)

    def _elsewhere(self, tasks: Mapping[str, Task], items: Container[str]) -> dict[str, Task]:
        """Tasks that are neither made here nor made already."""
        others = _without(tasks, items)
        return _without(others, self._outbox.find_made(others))

    def _make(self, item: Item) -> Outcome:
        """Make a task's outcome, and keep its prediction before anybody hears of it."""
        outcome = super()._make(item)
        if isinstance(outcome.entry, dict):
            self._outbox.add(item.key, outcome.entry, item.due)
        else:
            self._outbox.discard([item.key])
        with self._lock:
            self._making.pop(item.key, None)
        return replace(outcome, entry=[])  # as large as it may be, it is kept once

    def _fail(self, items: Sequence[Item], error: Exception) -> None:
        try:
            self._outbox.abandon(item.key for item in items)
        except SQLAlchemyError as lost:
            log.warning("%s; %d claims end by themselves", error_message(lost), len(items))
        with self._lock:
            for item in items:
                self._making.pop(item.key, None)
        super()._fail(items, error)


def _done(items: Mapping[str, Item], end: float) -> dict[str, Outcome]:
    """The outcomes of what is done by then; raises what is no fault of one task."""
    wait([item.outcome for item in items.values()], max(0.0, end - time.monotonic()))
    return {key: item.outcome.result() for key, item in items.items() if item.outcome.done()}


def _without(these: Mapping[str, T], those: Container[str]) -> dict[str, T]:
    return {key: value for key, value in these.items() if key not in those}
