"""The background threads of a backend that serves, for work that needs no request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from backend.database.leases import LEASE_S, LeaseLost, Leases
from backend.errors import BackendError
from backend.jobs.job_store import JobStore
from backend.jobs.prelabeler import Prelabeler
from backend.jobs.withdrawer import Withdrawer

log = logging.getLogger(__name__)

#: How often a thread without work looks for some, in seconds; that of runs seldom has any.
_POLL_S: Final = 1.0
_POLL_RUNS_S: Final = 5.0

#: How long a thread waits after an error, in seconds.
_RETRY_AFTER_S: Final = 15.0

#: Does a piece of work; returns whether there was any, and the next round should come at once.
Round = Callable[[], bool | None]


class Worker:
    """Runs rounds of work, each kind in a thread of its own.

    Args:
        rounds: thread name -> the round that the thread repeats.
        leases: are renewed in a further thread, so that a long round loses none.
    """

    def __init__(
        self,
        rounds: Mapping[str, Round],
        leases: Sequence[Leases],
        stopping: threading.Event,
    ) -> None:
        self._rounds = {"claims": self._renew_leases, **rounds}
        self._leases = leases
        self._stopping = stopping
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads; a second call does nothing."""
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._repeat, args=(name, round_), name=name, daemon=True)
                for name, round_ in self._rounds.items()
            ]
            for thread in self._threads:
                thread.start()

    def stop(self) -> None:
        """End the threads soon; a running job is released, for another backend or for later."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(_POLL_S)

    def _repeat(self, name: str, round_: Round) -> None:
        while not self._stopping.is_set():
            try:
                busy = round_()
            except (BackendError, SQLAlchemyError) as error:
                log.warning("%s; tried again in %g s", str(error).rstrip("."), _RETRY_AFTER_S)
                self._stopping.wait(_RETRY_AFTER_S)
            except Exception:  # as for a request, the next round may succeed
                log.exception("The background has failed; tried again in %g s", _RETRY_AFTER_S)
                self._stopping.wait(_RETRY_AFTER_S)
            else:
                poll_s = _POLL_RUNS_S if name == "runs" else _POLL_S
                self._stopping.wait(0 if busy else poll_s)

    def _renew_leases(self) -> bool:
        for each in self._leases:
            each.renew()
        self._stopping.wait(LEASE_S / 3)
        return True


class JobRunner:
    """Leases jobs and runs them; one that runs while the backend stops is released."""

    def __init__(
        self,
        store: JobStore,
        prelabeler: Prelabeler,
        withdrawer: Withdrawer,
        owner: str,
        stopping: threading.Event,
    ) -> None:
        self._store = store
        self._prelabeler = prelabeler
        self._withdrawer = withdrawer
        self._owner = owner
        self._stopping = stopping

    def run_next(self, late: bool = False) -> bool:
        """Run the next job, of late tasks or of others; return whether there was one."""
        job = self._store.lease_job(self._owner, late=late)
        if job is None:
            return False
        log.info("Job %d: project %d, by %s", job.id, job.project, self._owner)
        try:
            runner = self._withdrawer if job.kind == "withdrawal" else self._prelabeler
            job = runner.run(job, self._stopping)
            if not job.over:
                self._store.release(job.id, self._owner)
        except LeaseLost as error:
            log.warning("%s", error)
        except BackendError:
            self._store.release(job.id, self._owner)
            raise
        counts = job.done, job.skipped, job.failed, job.total
        log.info("Job %d is %s: %d done, %d skipped, %d failed of %s", job.id, job.state, *counts)
        return True
