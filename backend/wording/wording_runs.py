"""Measure what pages ask for, one after the other, and keep the last results in memory."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from backend.errors import Busy, WordingNotFound
from backend.run_queue import Run, RunQueue
from backend.wording.laboratory import Advance
from backend.wording.wording_report import WordingReport
from backend.wording.wording_request import WordingRequest

#: Runs that may wait, and runs that are kept, with their small pictures.
MAX_WAITING: Final = 5
MAX_KEPT: Final = 20

#: Measures a request, and tells its progress.
Measure = Callable[[WordingRequest, Advance], WordingReport]


@dataclass(frozen=True)
class WordingRun(Run):
    """A request and what became of it.

    Attributes:
        id: its number, at random: several backends behind one address have numbers of their own.
        asked: the request.
        created: when it came, in seconds since the epoch.
        total: pictures in all; None before it began.
        report: what was measured; None before it is done.
        used: the ``<Label>`` tag of the trial that was written into the label config; empty before.
    """

    id: int
    asked: WordingRequest
    created: float
    total: int | None = None
    report: WordingReport | None = None
    used: str = ""


class WordingRuns:
    """The runs of this process. Safe to share between threads; one thread calls `run_next`.

    Args:
        measure: measures a request; None where there is no token for Label Studio.
    """

    def __init__(self, measure: Measure | None) -> None:
        self._measure = measure
        self._queue = RunQueue[WordingRun](lambda run: run.id, "A trial of words")

    def request(self, asked: WordingRequest) -> WordingRun:
        """Add a run; where an equal one waits or runs, return that.

        Raises:
            Busy: too many wait.
        """

        def make(open_: list[WordingRun]) -> WordingRun:
            same = next((each for each in open_ if each.asked == asked), None)
            if same is None and len(open_) >= MAX_WAITING:
                raise Busy(f"{len(open_)} trials of words wait already: try again in a minute.")
            return same or WordingRun(1 + secrets.randbelow((1 << 31) - 1), asked, time.time())

        return self._queue.request(make, MAX_KEPT)

    def get(self, project: int, run: int) -> WordingRun:
        """Return a run of a project.

        Raises:
            WordingNotFound: there is none in this process.
        """
        found = self._queue.get(run)
        if found is None or found.asked.project != project:
            raise WordingNotFound(
                f"There is no trial {run} of the words of project {project} here. Results are kept "
                "in memory, by the backend that made them, until it restarts: try again."
            )
        return found

    def mark_used(self, run: WordingRun, line: str) -> WordingRun:
        """Remember the tag that was written into the label config, and return the run with it."""
        with suppress(KeyError):  # it was forgotten meanwhile
            self._queue.change(run, used=line)
        return replace(run, used=line)

    def list_runs(self, project: int) -> list[WordingRun]:
        """Return the runs of a project, the newest first."""
        return [each for each in self._queue.runs() if each.asked.project == project][::-1]

    def run_next(self) -> bool:
        """Measure the next request; return whether there was one."""
        return self._measure is not None and self._queue.run_next(self._do)

    def _do(self, run: WordingRun) -> dict[str, Any]:
        assert self._measure is not None
        change = self._queue.change
        return {
            "report": self._measure(
                run.asked, lambda done, total: change(run, done=done, total=total)
            )
        }
