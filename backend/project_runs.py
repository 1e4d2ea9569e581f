"""Runs over whole projects that pages ask for: one at a time, whose reports are kept."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy.exc import OperationalError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
    wait_fixed,
)

from backend.errors import Busy
from backend.run_queue import Run, RunQueue

log = logging.getLogger(__name__)

#: Runs of one kind that may wait, and runs whose state is kept.
MAX_WAITING: Final = 5
MAX_KEPT: Final = 100

#: How often, and for how long, a report is kept where the database is away, in seconds.
_KEEP_EVERY_S: Final = 5.0
_KEPT_FOR_S: Final = 3600.0

Report = TypeVar("Report")

#: Is told how many tasks are done, of how many.
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class ProjectRun(Run):
    """A run over a project that was asked for in this process.

    Attributes:
        project: id of the project.
        created: when it was asked for, in seconds since the epoch.
        total: tasks in all; None before it began.
    """

    project: int
    created: float
    total: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "created": self.created,
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "reason": self.reason,
        }


class ProjectRuns(Generic[Report]):
    """The runs of one kind in this process. Safe to share between threads; one calls `run_next`.

    Args:
        make: makes the report on a project, and tells its progress; None where there is no token
            for Label Studio.
        keep: keeps the report on a project.
        what: what a run is, for the log: it begins a sentence.
        stopping: once it is set, keeping a report is not tried again.
    """

    def __init__(
        self,
        make: Callable[[int, Advance], Report] | None,
        keep: Callable[[int, Report], None],
        what: str,
        stopping: threading.Event | None = None,
    ) -> None:
        self._make = make
        self._keep = keep
        self._what = what
        self._stopping = stopping or threading.Event()
        self._queue = RunQueue[ProjectRun](lambda run: run.project, what)

    def request(self, project: int) -> ProjectRun:
        """Ask for a run over a project, unless one waits or runs.

        Raises:
            Busy: too many wait.
        """

        def make(open_: list[ProjectRun]) -> ProjectRun:
            same = next((each for each in open_ if each.project == project), None)
            if same is None and len(open_) >= MAX_WAITING:
                raise Busy(f"{MAX_WAITING} projects wait already: try again when one is done.")
            return same or ProjectRun(project, time.time())

        return self._queue.request(make, MAX_KEPT)

    def get(self, project: int) -> ProjectRun | None:
        """Return the last run over a project that this process was asked for; None: none."""
        return self._queue.get(project)

    def run_next(self) -> bool:
        """Do the next run and keep its report; return whether there was one."""
        return self._make is not None and self._queue.run_next(self._do)

    def _do(self, run: ProjectRun) -> dict[str, Any]:
        assert self._make is not None
        change = self._queue.change
        report = self._make(run.project, lambda done, total: change(run, done=done, total=total))
        self._keep_at_last(run.project, report)
        return {}

    def _keep_at_last(self, project: int, report: Report) -> None:
        """Keep what took hours to find, also where the database is away for a while.

        Raises:
            OperationalError: it is away for longer than `_KEPT_FOR_S`, or the server stops.
        """
        for attempt in Retrying(
            retry=retry_if_exception_type(OperationalError),
            wait=wait_fixed(_KEEP_EVERY_S),
            stop=stop_any(stop_after_delay(_KEPT_FOR_S), stop_when_event_set(self._stopping)),
            sleep=sleep_using_event(self._stopping),
            before_sleep=self._log_failure,
            reraise=True,
        ):
            with attempt:
                self._keep(project, report)

    def _log_failure(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        reason = str(error.orig).strip() if isinstance(error, OperationalError) else error
        log.warning("%s is not kept yet: %s; next try in %.0f s", self._what, reason, _KEEP_EVERY_S)
