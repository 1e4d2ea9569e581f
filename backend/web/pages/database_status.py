"""Read what the pages show of the database."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from backend.feedback.annotation_store import AnnotationStore
from backend.jobs.job import Job
from backend.jobs.job_store import JobStore
from backend.prediction.failures import Failure, FailureStore
from backend.prediction.outbox import PredictionOutbox

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatabaseStatus:
    """The rows of the database that the pages show.

    Attributes:
        jobs: the newest jobs; those that are not over come first.
        failures: the newest failures, each with its project where that is known.
        unwritten: predictions that Label Studio has not got yet.
        reports: projects that have a report.
        trouble: what is wrong with the database, in one sentence; empty if it could be read.
    """

    jobs: tuple[Job, ...] = ()
    failures: tuple[tuple[Failure, int | None], ...] = ()
    unwritten: int = 0
    reports: tuple[int, ...] = ()
    trouble: str = ""


class DatabaseReader:
    """Read a `DatabaseStatus`.

    Args:
        store: the jobs.
        outbox: the predictions that are on their way to Label Studio.
        limit: how many jobs, and how many failures, to read.
    """

    def __init__(self, store: JobStore, outbox: PredictionOutbox, limit: int) -> None:
        self._store = store
        self._outbox = outbox
        self._limit = limit
        self._failures = FailureStore(store.database)
        self._annotations = AnnotationStore(store.database, "")

    def read(self) -> DatabaseStatus:
        """Read the database; where that fails, the status holds nothing but the trouble."""
        try:
            return self._read()
        except SQLAlchemyError as error:
            log.warning("The database of jobs cannot be read: %s", error)
            sentence = f"The database of jobs cannot be read: {type(error).__name__}."
            return DatabaseStatus(trouble=sentence)

    def _read(self) -> DatabaseStatus:
        jobs = sorted(self._store.list_jobs(limit=self._limit), key=lambda job: job.over)
        projects = {job.id: job.project for job in jobs}
        failures = self._failures.newest(limit=self._limit)
        return DatabaseStatus(
            jobs=tuple(jobs),
            failures=tuple((failure, projects.get(failure.job)) for failure in failures),
            unwritten=sum(self._outbox.count_waiting().values()),
            reports=tuple(self._annotations.projects()),
        )
