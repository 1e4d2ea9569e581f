"""Make what was asked for: lease a run, make its report, keep it."""

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any, Final

from sqlalchemy.exc import OperationalError

from backend.database.database import advise, error_message
from backend.database.leases import LeaseLost
from backend.errors import BackendError
from backend.runs.agreement import AGREEMENT
from backend.runs.checks import CHECKS
from backend.runs.dataset import DATASETS
from backend.runs.label_errors import LABEL_ERRORS
from backend.runs.models import MODELS
from backend.runs.run_store import Progress, Run, RunKind, RunParts, RunStore
from backend.runs.words import WORDS

log = logging.getLogger(__name__)

#: All kinds of runs.
KINDS: Final[tuple[RunKind[Any, Any], ...]] = (
    LABEL_ERRORS,
    AGREEMENT,
    WORDS,
    MODELS,
    DATASETS,
    CHECKS,
)

_NOTE_EVERY_S: Final = 1.0  # time between two notes of the progress, in seconds


class _BackendStops(Exception):  # noqa: N818 -- what happens
    """The backend stops: the run is for another one, or for later."""


class Runner:
    """Makes the reports of runs, one after the other, until the backend stops."""

    def __init__(
        self,
        kinds: Collection[RunKind[Any, Any]],
        store: RunStore,
        parts: RunParts,
        stopping: threading.Event,
    ) -> None:
        self._kinds = {kind.name: kind for kind in kinds}
        self._store = store
        self._parts = parts
        self._stopping = stopping

    def run_next(self) -> bool:
        """Make the next run; return whether there was one."""
        run = self._store.lease(self._kinds)
        if run is None:
            return False
        kind = self._kinds[run.kind]
        try:
            gone = self._make(kind, run)
        except LeaseLost as error:
            log.info("%s", error)
            gone = [run]
        finally:
            self._store.leases.let_go(run.id)  # a lease that could not be ended ends by itself
        for each in gone:
            kind.forget(self._parts.settings, each)
        return True

    def _make(self, kind: RunKind[Any, Any], run: Run) -> list[Run]:
        """Make a report and keep it; return the runs that are kept no more, or that have failed."""
        begin = partial(self._begin, run)
        parts = replace(self._parts, images=self._parts.images.telling(begin))
        try:
            report = kind.make(parts, run, kind.read_asked(run), self._progress(run))
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 -- a run that fails says why
            if self._stopping.is_set():  # the engine and the client stop with the backend
                self._store.release(run)
                return []
            return [run, *self._store.finish(run, reason=_reason(kind, error))]
        return self._store.finish(run, report)

    def _begin(self, run: Run, task: int) -> None:
        """Note the task that a run is at; raise `TaskDeadly` where the process has died at it."""
        self._store.leases.begin(task, run.id)

    def _progress(self, run: Run) -> Progress:
        """Return what notes the progress of a run once a second at most."""
        next_s = 0.0

        def note(done: int, total: int | None) -> None:
            nonlocal next_s
            if self._stopping.is_set():
                raise _BackendStops
            if time.monotonic() < next_s:
                return
            next_s = time.monotonic() + _NOTE_EVERY_S
            try:
                self._store.advance(run, done, total)
            except OperationalError as error:  # the report is what matters
                log.warning("The progress of a run is not noted: %s", error_message(error))

        return note


def _reason(kind: RunKind[Any, Any], error: Exception) -> str:
    if isinstance(error, BackendError | ValueError):
        return str(error)
    if isinstance(error, OperationalError):
        log.warning("%s has failed: %s", kind.title, error_message(error))
        return advise(error, "start it again")
    log.error("%s has failed", kind.title, exc_info=error)
    return f"Unexpected {type(error).__name__}: see the backend's log."
