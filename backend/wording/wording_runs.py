"""Measure what pages ask for, one after the other, and keep the last results in memory."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from backend.errors import BackendError, Busy, WordingNotFound
from backend.wording.laboratory import Advance
from backend.wording.wording_report import WordingReport
from backend.wording.wording_request import WordingRequest

log = logging.getLogger(__name__)

RunState = Literal["queued", "running", "done", "failed"]

#: Runs that may wait, and runs that are kept, with their small pictures.
MAX_WAITING: Final = 5
MAX_KEPT: Final = 20

#: Measures a request, and tells its progress.
Measure = Callable[[WordingRequest, Advance], WordingReport]


@dataclass(frozen=True)
class WordingRun:
    """A request and what became of it.

    Attributes:
        id: its number, at random: several backends behind one address have numbers of their own.
        asked: the request.
        created: when it came, in seconds since the epoch.
        state: what it is doing.
        done: pictures that are done.
        total: pictures in all; None before it began.
        reason: why it failed.
        report: what was measured; None before it is done.
    """

    id: int
    asked: WordingRequest
    created: float
    state: RunState = "queued"
    done: int = 0
    total: int | None = None
    reason: str = ""
    report: WordingReport | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.state in ("done", "failed")


class WordingRuns:
    """The runs of this process. Safe to share between threads; one thread calls `run_next`.

    Args:
        measure: measures a request; None where there is no token for Label Studio.
    """

    def __init__(self, measure: Measure | None) -> None:
        self._measure = measure
        self._lock = threading.Lock()
        self._runs: dict[int, WordingRun] = {}

    def request(self, asked: WordingRequest) -> WordingRun:
        """Add a run; where an equal one waits or runs, return that.

        Raises:
            Busy: too many wait.
        """
        with self._lock:
            open_ = [each for each in self._runs.values() if not each.is_over]
            for each in open_:
                if each.asked == asked:
                    return each
            if len(open_) >= MAX_WAITING:
                raise Busy(f"{len(open_)} trials of words wait already: try again in a minute.")
            run = WordingRun(1 + secrets.randbelow((1 << 31) - 1), asked, time.time())
            self._runs[run.id] = run
            over = [each.id for each in self._runs.values() if each.is_over]
            for id_ in over[: max(0, len(self._runs) - MAX_KEPT)]:
                del self._runs[id_]
            return run

    def get(self, project: int, run: int) -> WordingRun:
        """Return a run of a project.

        Raises:
            WordingNotFound: there is none in this process.
        """
        with self._lock:
            found = self._runs.get(run)
        if found is None or found.asked.project != project:
            raise WordingNotFound(
                f"There is no trial {run} of the words of project {project} here. Results are kept "
                "in memory, by the backend that made them, until it restarts: try again."
            )
        return found

    def list_runs(self, project: int) -> list[WordingRun]:
        """Return the runs of a project, the newest first."""
        with self._lock:
            return [each for each in self._runs.values() if each.asked.project == project][::-1]

    def run_next(self) -> bool:
        """Measure the next request; return whether there was one."""
        with self._lock:
            run = next((each for each in self._runs.values() if each.state == "queued"), None)
        if run is None or self._measure is None:
            return False
        self._change(run.id, state="running")
        try:
            report = self._measure(
                run.asked, lambda done, total: self._change(run.id, done=done, total=total)
            )
        except (BackendError, ValueError) as error:
            self._change(run.id, state="failed", reason=str(error))
        except Exception as error:
            log.exception("A trial of words has failed")
            reason = f"Unexpected {type(error).__name__}: see the backend's log."
            self._change(run.id, state="failed", reason=reason)
        else:
            self._change(run.id, state="done", report=report)
        return True

    def _change(self, run: int, **values: object) -> None:
        with self._lock:
            self._runs[run] = replace(self._runs[run], **values)  # type: ignore[arg-type]
