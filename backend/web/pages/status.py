"""Report the status of a running backend: for ``/status``, and for the dashboard.

Nothing here waits for the model, for Label Studio, or for an image.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from operator import itemgetter
from typing import Any, Final

import msgspec
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from backend.database.database import cause_of
from backend.errors import ModelUnavailable
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.sums import GroupSums
from backend.inference.engine import Snapshot
from backend.inference.queue import Priority
from backend.jobs.change_poller import ChangePoller, Poll
from backend.jobs.connection_watch import TokenWatch
from backend.jobs.job_store import Job, JobStore
from backend.label_studio.download import LabelStudioFiles
from backend.learning.versions import Summary
from backend.prediction.failures import FailingTask, FailureCount, FailureStore
from backend.services import Services
from backend.telemetry.logs import known_secrets
from backend.telemetry.task_tracker import HandledTask, TaskId, TaskTracker
from backend.web.metrics import gpu_memory_bytes
from backend.web.pages.projects import DeletedProjects
from backend.web.pages.serializers import StatusSerializer, merge_failures

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ConnectionStatus:
    """Read what background threads have found out about Label Studio; ask it nothing.

    Args:
        token_watch: whether Label Studio accepts the token.
        change_poller: which projects are polled for changes.
        files: makes links to Label Studio.
    """

    token_watch: TokenWatch
    change_poller: ChangePoller
    files: LabelStudioFiles

    def read(self, scrub: Callable[[str], str]) -> dict[str, Any]:
        """Read the status of one moment.

        Returns:
            JSON: ``trouble``, a sentence; ``poll_interval_s``, None where nothing is polled; and
            the projects that are ``polled``. Times are in seconds since the epoch.
        """
        return {
            "trouble": scrub(self.token_watch.trouble),
            "poll_interval_s": self._interval_s,
            "polled": [self._poll(poll, scrub) for poll in self._polls()],
        }

    @property
    def _interval_s(self) -> float | None:
        poller = self.change_poller
        return None if poller.client is None else poller.settings.poll_interval_s

    def _polls(self) -> list[Poll]:
        try:
            return self.change_poller.polls.list_polls() if self.change_poller.client else []
        except SQLAlchemyError:  # the status of the database says so
            return []

    def _poll(self, poll: Poll, scrub: Callable[[str], str]) -> dict[str, Any]:
        at, trouble = poll.polled or None, scrub(poll.trouble)
        tasks = poll.tasks if poll.noted else None
        return {**self._link(poll.project), "at": at, "tasks": tasks, "trouble": trouble}

    def _link(self, project: int) -> dict[str, Any]:
        return {"project": project, "url": self.files.task_url(project)}


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
    """Read a `DatabaseStatus`."""

    def __init__(self, store: JobStore, deleted: DeletedProjects, limit: int) -> None:
        self._store = store
        self._deleted = deleted
        self._limit = limit
        self._failures = FailureStore(store.database)
        self._annotations = AnnotationStore(store.database)

    def read(self, failed: Collection[int] = ()) -> DatabaseStatus:
        """Read the database; where that fails, the status holds nothing but the trouble."""
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
        by_project = self._failures.by_project()
        hidden = self._deleted.hidden({id_: each.newest for id_, each in by_project.items()})
        totals = self._annotations.totals()
        return DatabaseStatus(
            jobs=tuple(sorted(jobs, key=lambda job: job.over)),
            failing=tuple(self._failures.failing(self._limit, hidden)),
            hidden=hidden,
            failure_count=self._failures.count(hidden),
            solved_at=self._failures.solved_at(failed),
            failing_by_project={id_: each.tasks for id_, each in by_project.items()},
            annotations={each: totals[each] for each in self._deleted.there(totals)},
        )


#: How many jobs and how many failures are shown; ``/jobs`` lists more jobs.
ROWS_SHOWN = 20

_PACKAGES = (
    "clearclip-label-studio",
    "torch",
    "open_clip_torch",
    "label-studio-ml",
    "label-studio-sdk",
    "flask",
)


class StatusReport:
    """Read the status of the backend's parts, and of the tasks that run and that have failed."""

    def __init__(self, services: Services, tracker: TaskTracker) -> None:
        deleted = DeletedProjects(services.project_titles)
        secrets = known_secrets(services.settings)
        self.serializer = StatusSerializer(services.files, secrets, deleted)
        self._services = services
        self._tracker = tracker
        self._database = DatabaseReader(services.store, deleted, ROWS_SHOWN)
        self._connection = ConnectionStatus(
            services.token_watch, services.change_poller, services.files
        )
        self._versions = package_versions()
        self._started_at = time.time()

    def read(self) -> dict[str, Any]:
        """Read the status of one moment.

        Returns:
            JSON: durations in seconds, sizes in bytes, times in seconds since the epoch.
        """
        now, batches = self._services.engine.snapshot(), self._services.task_runner.count_waiting()
        of_process = self._tracker.failures
        database = self._database.read({each.task for each in of_process if type(each.task) is int})
        errors = self._errors(of_process, database)
        connection = self._connection.read(self.serializer.scrub)
        jobs = [self.serializer.job(job) for job in database.jobs]
        return {
            "at": time.time(),
            "started_at": self._started_at,
            "label_studio": self._services.files.browser_url,
            "connection": connection,
            "model": self._model(now),
            "queue": {priority.word: count for priority, count in now.waiting.items()},
            "waiting": _waiting(now, batches),
            "vocabularies": now.vocabularies,
            "running": [self.serializer.running_task(task) for task in self._tracker.running],
            "done": self._tracker.done,
            "failed": self._tracker.failed,
            "remaining": _remaining(now, batches, jobs),
            "pictures_per_second": round(self._tracker.pictures_per_second, 3),
            "eta_s": _eta_s(jobs),
            "projects": self._projects(),
            "jobs": jobs,
            "jobs_trouble": database.trouble,
            "served": _served(connection["polled"], database, jobs),
            "learning": self._learning(),
            "errors": errors[:ROWS_SHOWN],
            "failing": _count_failing(errors, database),
            "caches": self._caches(now),
            "gpu_memory_bytes": gpu_memory_bytes(),
            "versions": self._versions,
        }

    def _model(self, now: Snapshot) -> dict[str, Any]:
        return {
            "name": self._services.settings.model,
            "method": self._services.settings.method,
            "device": now.device,
            "precision": now.precision,
            "state": now.status.state,
            "reason": self.serializer.scrub(now.status.reason),
            "windows_at_once": now.windows_at_once,
            "pictures": now.done,
            "batches": now.batches,
        }

    def _projects(self) -> list[dict[str, Any]]:
        """The tasks done and failed by project, the latest project first."""
        return [
            {"project": project, "done": done, "failed": failed}
            for project, (done, failed) in reversed(self._tracker.projects.items())
        ]

    def _learning(self) -> dict[str, Any]:
        """What all projects have learned together; zeros where that cannot be read."""
        try:
            summary = self._services.versions.summary()
        except (SQLAlchemyError, ModelUnavailable):  # "jobs_trouble" and "model" report these
            summary = Summary()
        newest = summary.newest
        return {
            "live": summary.live,
            "pictures": summary.pictures,
            "last_step": None if newest is None else msgspec.to_builtins(newest),
        }

    def _errors(
        self, of_process: Iterable[HandledTask], database: DatabaseStatus
    ) -> list[dict[str, Any]]:
        """Merge what this process and the database know, but not of tasks predicted since."""
        solved = database.solved_at
        there = [each for each in of_process if each.project not in database.hidden]
        open_ = [each for each in there if each.ended_at > solved.get(_number(each.task), 0)]
        return merge_failures(
            [self.serializer.failed_task(record) for record in open_]
            + [self.serializer.failing_task(failing) for failing in database.failing]
        )

    def _caches(self, now: Snapshot) -> dict[str, Any]:
        return {
            "features": msgspec.to_builtins(now.cache),
            "words": {"hits": now.words_known, "misses": now.words_new},
            "pictures": msgspec.to_builtins(self._services.images.cache_stats),
        }


def _number(task: TaskId) -> int:
    """Return the id of a task, and 0, which none has, where it is no number."""
    return task if isinstance(task, int) else 0


def _count_failing(errors: Sequence[dict[str, Any]], database: DatabaseStatus) -> dict[str, Any]:
    """Count the tasks without a whole prediction; since when: the time of the first failure."""
    known = {each.task for each in database.failing}
    more = [each for each in errors if each["task"] is not None and each["task"] not in known]
    # Where the database has more than it has listed, those of this process may be among them.
    listed = len(database.failing) == database.failure_count.tasks
    count = database.failure_count.tasks + (len(more) if listed else 0)
    times = [each["since"] for each in errors if each["task"] is not None]
    if database.failure_count.since is not None:
        times.append(database.failure_count.since)
    return {"tasks": count, "since": min(times, default=None)}


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the main packages; empty for one not installed."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = ""
    return versions


def _served(
    polled: Sequence[dict[str, Any]], database: DatabaseStatus, jobs: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the figures of each project that is connected, has a job, or was read from.

    The project with most failures comes first, then the one with most annotations.
    """
    tasks = {each["project"]: each["tasks"] for each in polled}
    found = []
    with_job = {job["project"] for job in jobs if not job["project_gone"]}
    for project in tasks.keys() | database.annotations.keys() | with_job:
        sums = database.annotations.get(project, GroupSums())
        figures = {
            "project": project,
            "tasks": tasks.get(project),
            "annotations": sum(sums.kinds.values()),
            "accepted_share": sums.total.accepted_share,
            "failing": database.failing_by_project.get(project, 0),
        }
        found.append(figures)
    order = itemgetter("failing", "annotations", "project")
    return sorted(found, key=order, reverse=True)


def _waiting(now: Snapshot, batches: Mapping[int | None, int]) -> list[dict[str, Any]]:
    """Count waiting work by priority and project.

    For annotators these are images in the engine's queue; for batches, tasks, running ones
    included.
    """
    lines = {
        key: count for key, count in now.waiting_by_project.items() if key[0] is not Priority.BATCH
    }
    lines |= {(Priority.BATCH, project): count for project, count in batches.items()}
    return [
        {"urgency": priority.word, "project": project, "count": count}
        for (priority, project), count in sorted(lines.items(), key=lambda line: line[0][0])
    ]


def _remaining(now: Snapshot, batches: Mapping[int | None, int], jobs: list[dict[str, Any]]) -> int:
    """Count what is still to be done; a running job already counts the batches of its project."""
    running = {job["project"] for job in jobs if job["state"] == "running"}
    return (
        sum(job["remaining"] or 0 for job in jobs if not job["over"])
        + sum(count for project, count in batches.items() if project not in running)
        + sum(count for priority, count in now.waiting.items() if priority is not Priority.BATCH)
    )


def _eta_s(jobs: list[dict[str, Any]]) -> float | None:
    """Return the seconds until the last running job ends; None if one of them has no estimate."""
    estimates = [job["eta_s"] for job in jobs if job["state"] == "running"]
    return max(estimates) if estimates and None not in estimates else None
