"""Review the annotations of projects, one project after the other, as pages ask for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from backend.errors import BackendError, Busy
from backend.label_errors.review_report import ReviewReport
from backend.label_errors.review_store import ReviewStore

log = logging.getLogger(__name__)

RunState = Literal["queued", "running", "done", "failed"]

#: Reviews that may wait, and reviews whose state is kept.
MAX_WAITING: Final = 5
MAX_KEPT: Final = 100

#: Is told how many tasks are done, of how many.
Advance = Callable[[int, int], None]

#: Reviews a project, and tells its progress.
Review = Callable[[int, Advance], ReviewReport]


@dataclass(frozen=True)
class ReviewRun:
    """A review that was asked for in this process.

    Attributes:
        project: id of the project.
        created: when it was asked for, in seconds since the epoch.
        state: what it is doing.
        done: tasks that are done.
        total: tasks in all; None before it began.
        reason: why it failed.
    """

    project: int
    created: float
    state: RunState = "queued"
    done: int = 0
    total: int | None = None
    reason: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.state in ("done", "failed")

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
        self._lock = threading.Lock()
        self._runs: dict[int, ReviewRun] = {}

    def request(self, project: int) -> ReviewRun:
        """Ask for a review of a project, unless one waits or runs.

        Raises:
            Busy: too many wait.
        """
        with self._lock:
            before = self._runs.get(project)
            if before is not None and not before.is_over:
                return before
            if sum(not each.is_over for each in self._runs.values()) >= MAX_WAITING:
                raise Busy(f"{MAX_WAITING} reviews wait already: try again when one is done.")
            self._runs.pop(project, None)  # the newest comes last
            run = self._runs[project] = ReviewRun(project, time.time())
            over = [each.project for each in self._runs.values() if each.is_over]
            for oldest in over[: max(0, len(self._runs) - MAX_KEPT)]:
                del self._runs[oldest]
            return run

    def get(self, project: int) -> ReviewRun | None:
        """Return the last review of a project that this process was asked for; None: none."""
        with self._lock:
            return self._runs.get(project)

    def run_next(self) -> bool:
        """Make the next review and keep what it finds; return whether there was one."""
        with self._lock:
            run = next((each for each in self._runs.values() if each.state == "queued"), None)
        if run is None or self._review is None:
            return False
        project = run.project
        self._change(project, state="running")
        try:
            report = self._review(
                project, lambda done, total: self._change(project, done=done, total=total)
            )
            self._store.keep(project, report)
        except (BackendError, ValueError) as error:
            self._change(project, state="failed", reason=str(error))
        except Exception as error:
            log.exception("A review of annotations has failed")
            reason = f"Unexpected {type(error).__name__}: see the backend's log."
            self._change(project, state="failed", reason=reason)
        else:
            self._change(project, state="done")
        return True

    def _change(self, project: int, **values: object) -> None:
        with self._lock:
            self._runs[project] = replace(self._runs[project], **values)  # type: ignore[arg-type]
