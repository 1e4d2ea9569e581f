"""Read what the pages show of the database."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from backend.database.database import cause_of
from backend.feedback.annotation_store import AnnotationQueries
from backend.feedback.sums import GroupSums
from backend.jobs.job import Job
from backend.jobs.job_store import JobStore
from backend.prediction.failures import FailingTask, FailureCount, FailureStore
from backend.web.pages.deleted_projects import DeletedProjects

log = logging.getLogger(__name__)

#: Jobs that are read for each that is shown: those of deleted projects are left out.
_JOBS_READ: Final = 5


@dataclass(frozen=True)
class DatabaseStatus:
    """The rows of the database that the pages show.

    Attributes:
        jobs: the newest jobs; those that are not over come first. Jobs that were over for a day
            are left out when their project is gone.
        failing: the tasks without a prediction, the one that failed last first; not those of a
            project that is gone, a day after its last failure.
        hidden: these projects.
        failure_count: how many these are in all, and since when.
        solved_at: id of a task that has failed -> when it was predicted since.
        failing_by_project: project -> number of its tasks without a prediction.
        annotations: project that is there -> the sums over its annotations.
        trouble: what is wrong with the database, in one sentence; empty if it could be read.
    """

    jobs: tuple[Job, ...] = ()
    failing: tuple[FailingTask, ...] = ()
    hidden: Collection[int] = ()
    failure_count: FailureCount = field(default_factory=FailureCount)
    solved_at: Mapping[int, float] = field(default_factory=dict)
    failing_by_project: Mapping[int, int] = field(default_factory=dict)
    annotations: Mapping[int, GroupSums] = field(default_factory=dict)
    trouble: str = ""


class DatabaseReader:
    """Read a `DatabaseStatus`.

    Args:
        store: the jobs.
        deleted: hides what is of projects that are gone.
        limit: how many jobs, and how many failing tasks, to read.
    """

    def __init__(self, store: JobStore, deleted: DeletedProjects, limit: int) -> None:
        self._store = store
        self._deleted = deleted
        self._limit = limit
        self._failures = FailureStore(store.database)
        self._annotations = AnnotationQueries(store.database)

    def read(self, failed: Collection[int] = ()) -> DatabaseStatus:
        """Read the database; where that fails, the status holds nothing but the trouble.

        Args:
            failed: tasks that have failed in this process: were they predicted since?
        """
        try:
            return self._read(failed)
        except SQLAlchemyError as error:
            log.warning("The database of jobs cannot be read: %s", error)
            if isinstance(error, OperationalError):
                return DatabaseStatus(trouble=f"{cause_of(error)}.")
            sentence = f"The database of jobs cannot be read: {type(error).__name__}."
            return DatabaseStatus(trouble=sentence)

    def _read(self, failed: Collection[int]) -> DatabaseStatus:
        newest = self._store.list_jobs(limit=_JOBS_READ * self._limit)
        jobs = [job for job in newest if not self._deleted.hides(job)][: self._limit]
        hidden = self._deleted.hidden(self._failures.failed_at())
        totals = self._annotations.totals()
        return DatabaseStatus(
            jobs=tuple(sorted(jobs, key=lambda job: job.over)),
            failing=tuple(self._failures.failing(self._limit, hidden)),
            hidden=hidden,
            failure_count=self._failures.count(hidden),
            solved_at=self._failures.solved_at(failed),
            failing_by_project=self._failures.count_by_project(),
            annotations={each: totals[each] for each in self._deleted.there(totals)},
        )
