"""Choose the tasks that pages ask for, one project after the other; a choice can be cancelled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from backend.errors import Busy
from backend.run_queue import Run, RunQueue
from backend.task_order.next_tasks import NextTasks
from backend.task_order.task_picker import Advance

#: Runs that may wait, and runs whose state is kept, of one project each.
MAX_WAITING: Final = 5
MAX_KEPT: Final = 100

#: Chooses so many tasks of a project, and tells its progress.
Pick = Callable[[int, int, Advance], NextTasks]


@dataclass(frozen=True)
class NextTasksRun(Run):
    """A choice of tasks that was asked for in this process.

    Attributes:
        project: id of the project.
        count: number of tasks.
        created: when it was asked for, in seconds since the epoch.
        total: pictures that are looked at, at most; None before it began.
        is_ending: whether it was cancelled; it ends before the next picture.
    """

    project: int
    count: int
    created: float
    total: int | None = None
    is_ending: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "count": self.count,
            "created": self.created,
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "ending": self.is_ending,
            "reason": self.reason,
        }


class NextTasksRuns:
    """The choices of this process. Safe to share between threads; one calls `run_next`.

    Args:
        pick: chooses tasks; None where there is no token for Label Studio.
        keep: keeps the choice of a project.
        stopping: once it is set, a choice ends.
    """

    def __init__(
        self,
        pick: Pick | None,
        keep: Callable[[int, NextTasks], None],
        stopping: threading.Event,
    ) -> None:
        self._pick = pick
        self._keep = keep
        self._stopping = stopping
        self._queue = RunQueue[NextTasksRun](lambda run: run.project, "A choice of next tasks")

    def request(self, project: int, count: int) -> NextTasksRun:
        """Ask for tasks of a project, unless a choice of it waits or runs.

        Raises:
            Busy: too many wait, or a choice of another number of tasks, or one that was cancelled,
                is not over.
        """

        def make(open_: list[NextTasksRun]) -> NextTasksRun:
            same = next((each for each in open_ if each.project == project), None)
            if same is not None and same.is_ending:
                raise Busy("The choice that was cancelled is not over yet: try again in a moment.")
            if same is not None and same.count != count:
                raise Busy(f"{same.count} tasks are being chosen: wait for them, or cancel that.")
            if same is None and len(open_) >= MAX_WAITING:
                raise Busy(f"{MAX_WAITING} projects wait already: try again when one is done.")
            return same or NextTasksRun(project, count, time.time())

        return self._queue.request(make, MAX_KEPT)

    def get(self, project: int) -> NextTasksRun | None:
        """Return the last choice that this process was asked for; None: none."""
        return self._queue.get(project)

    def cancel(self, project: int) -> None:
        """End a choice that waits or runs; what it has found is forgotten."""
        run = self._queue.get(project)
        if run is not None and not run.is_over:
            self._queue.change(run, is_ending=True)

    def run_next(self) -> bool:
        """Make the next choice and keep it; return whether there was one."""
        return self._pick is not None and self._queue.run_next(self._do)

    def _do(self, run: NextTasksRun) -> dict[str, Any]:
        assert self._pick is not None

        def advance(done: int, total: int) -> None:
            self._end_if_cancelled(run)
            self._queue.change(run, done=done, total=total)

        try:
            self._end_if_cancelled(run)
            report = self._pick(run.project, run.count, advance)
            self._end_if_cancelled(run)
        except _CancelledError:
            return {"state": "cancelled"}
        self._keep(run.project, report)
        return {}

    def _end_if_cancelled(self, run: NextTasksRun) -> None:
        now = self._queue.get(run.project)
        if self._stopping.is_set() or (now is not None and now.is_ending):
            raise _CancelledError


class _CancelledError(Exception):
    """Somebody has cancelled the choice, or the backend stops."""
