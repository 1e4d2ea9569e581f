"""Run queued jobs, one after the other."""

from __future__ import annotations

import logging
import threading

from backend.database.leases import LeaseLost
from backend.errors import BackendError
from backend.jobs.job import Job
from backend.jobs.job_store import JobStore
from backend.jobs.prelabeler import Prelabeler
from backend.jobs.withdrawer import Withdrawer

log = logging.getLogger(__name__)


class JobRunner:
    """Leases jobs and runs them.

    Args:
        stopping: once it is set, a running job is released for another backend or for later.
    """

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
        """Run the next job as far as it goes; return whether there was one.

        Args:
            late: whether to run jobs of late tasks, which wait for no other ones, or the others.
        """
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
        log.info("Job %d is %s: %s", job.id, job.state, describe_job(job))
        return True


def describe_job(job: Job) -> str:
    """Return a job's counts in words."""
    return f"{job.done} done, {job.skipped} skipped, {job.failed} failed of {job.total}"
