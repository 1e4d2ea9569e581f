"""Review the annotations of projects, one project after the other, as pages ask for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.exc import OperationalError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from backend.errors import Busy
from backend.label_errors.review_report import ReviewReport
from backend.label_errors.review_store import ReviewStore
from backend.run_queue import Run, RunQueue

#: Reviews that may wait, and reviews whose state is kept.
MAX_WAITING: Final = 5
MAX_KEPT: Final = 100

#: How often, and for how long, a review is kept where the database is away, in seconds.
_KEEP_EVERY_S: Final = 5.0
_KEPT_FOR_S: Final = 3600.0

#: Is told how many tasks are done, of how many.
Advance = Callable[[int, int], None]

#: Reviews a project, and tells its progress.
Review = Callable[[int, Advance], ReviewReport]


@dataclass(frozen=True)
class ReviewRun(Run):
    """A review that was asked for in this process.

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


class ReviewRuns:
    """The reviews of this process. Safe to share between threads; one thread calls `run_next`.

    Args:
        review: reviews a project; None where there is no token for Label Studio.
        store: keeps what is found.
    """

    def __init__(self, review: Review | None, store: ReviewStore) -> None:
        self._review = review
        self._store = store
        self._queue = RunQueue[ReviewRun](lambda run: run.project, "A review of annotations")

    def request(self, project: int) -> ReviewRun:
        """Ask for a review of a project, unless one waits or runs.

        Raises:
            Busy: too many wait.
        """

        def make(open_: list[ReviewRun]) -> ReviewRun:
            same = next((each for each in open_ if each.project == project), None)
            if same is None and len(open_) >= MAX_WAITING:
                raise Busy(f"{MAX_WAITING} reviews wait already: try again when one is done.")
            return same or ReviewRun(project, time.time())

        return self._queue.request(make, MAX_KEPT)

    def get(self, project: int) -> ReviewRun | None:
        """Return the last review of a project that this process was asked for; None: none."""
        return self._queue.get(project)

    def run_next(self) -> bool:
        """Make the next review and keep what it finds; return whether there was one."""
        return self._review is not None and self._queue.run_next(self._do)

    def _do(self, run: ReviewRun) -> dict[str, Any]:
        assert self._review is not None
        change = self._queue.change
        report = self._review(run.project, lambda done, total: change(run, done=done, total=total))
        self._keep(run.project, report)
        return {}

    def _keep(self, project: int, report: ReviewReport) -> None:
        """Keep what took hours to find, also where the database is away for a while.

        Raises:
            OperationalError: it is away for longer than `_KEPT_FOR_S`.
        """
        for attempt in Retrying(
            retry=retry_if_exception_type(OperationalError),
            wait=wait_fixed(_KEEP_EVERY_S),
            stop=stop_after_delay(_KEPT_FOR_S),
            reraise=True,
        ):
            with attempt:
                self._store.keep(project, report)
