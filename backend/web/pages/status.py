"""Report the status of a running backend: for ``/status``, and for the dashboard.

Nothing here waits for the model, for Label Studio, or for an image.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from operator import itemgetter
from typing import Any, Final

import msgspec
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from backend.database.database import cause_of
from backend.feedback.sums import GroupSums
from backend.inference.engine import Snapshot
from backend.inference.queue import Priority
from backend.jobs.change_poller import Poll
from backend.jobs.job_store import Job
from backend.label_studio.download import LabelStudioFiles
from backend.prediction.failures import FailingTask, FailureCount, FailureStore
from backend.services import Services
from backend.telemetry.logs import known_secrets, scrub
from backend.telemetry.task_tracker import HandledTask, TaskId, TaskTracker, TrackedTask
from backend.web.metrics import gpu_memory_bytes
from backend.web.pages.projects import DeletedProjects

log = logging.getLogger(__name__)

_Json = dict[str, Any]

#: How many jobs and how many failures are shown; ``/jobs`` lists more jobs.
ROWS_SHOWN: Final = 20

#: Jobs that are read for each that is shown: those of deleted projects are left out.
_JOBS_READ: Final = 5

#: Longest task id that is shown, in characters.
_TASK_ID_LENGTH: Final = 100

_PACKAGES = (
    "clearclip-label-studio",
    "torch",
    "open_clip_torch",
    "label-studio-ml",
    "label-studio-sdk",
    "flask",
)


class StatusSerializer:
    """Serialize what `StatusReport` and the job routes answer."""

    def __init__(
        self, files: LabelStudioFiles, secrets: Iterable[str], deleted: DeletedProjects
    ) -> None:
        self._deleted = deleted
        self._files = files
        self._secrets = tuple(secrets)

    def job(self, job: Job) -> _Json:
        """Serialize a job."""
        is_gone = self._deleted.has_project_of(job)
        return {
            **msgspec.to_builtins(job),
            "reason": self.scrub(job.reason),
            "over": job.over,
            "remaining": job.remaining,
            "rate": job.rate,
            "eta_s": job.eta_s,
            "url": None if is_gone else self._files.task_url(job.project),
            "project_gone": is_gone,
        }

    def running_task(self, running: TrackedTask) -> _Json:
        """Serialize a task that is being worked on."""
        return {
            "task": self._task_id(running.task),
            "project": running.project,
            "urgency": running.priority,
            "seconds": running.seconds,
            "stage": running.stages.now,
            "url": self._files.task_url(running.project, running.task),
        }

    def failed_task(self, record: HandledTask) -> _Json:
        """Serialize a failure that this process remembers."""
        return {
            "task": self._task_id(record.task),
            "project": record.project,
            "job": None,
            "at": record.ended_at,
            "since": record.ended_at,
            "reason": record.reason,
            "sentence": self.scrub(record.sentence),
            "url": self._files.task_url(record.project, record.task),
        }

    def failing_task(self, failing: FailingTask) -> _Json:
        """Serialize a task without a prediction, as the database has it."""
        return {
            "task": failing.task,
            "project": failing.project,
            "job": failing.job or None,
            "at": failing.at,
            "since": failing.since,
            "reason": "",
            "sentence": self.scrub(failing.reason),
            "url": self._files.task_url(failing.project, failing.task),
        }

    def scrub(self, sentence: str) -> str:
        """Cut secrets out of a sentence."""
        return scrub(sentence, self._secrets)

    def _task_id(self, task: TaskId) -> TaskId:
        """Return a task's id; one that is a text comes from outside, and is scrubbed and cut."""
        return scrub(task, self._secrets, _TASK_ID_LENGTH) if isinstance(task, str) else task


def merge_failures(failures: Iterable[_Json]) -> list[_Json]:
    """Merge the failures of one task, as several tries leave them; those of no task by sentence.

    Returns:
        One failure for each task, the one that failed last first, with the newest reason and the
        time of the first. Each has the project, job and link that any of the merged ones has.

    >>> first = {"task": 5, "sentence": "Gone.", "project": 7, "job": None, "url": "u", "at": 1.0}
    >>> again = first | {"sentence": "Large.", "project": None, "job": 3, "url": None, "at": 2.0}
    >>> (merged,) = merge_failures([again | {"since": 2.0}, first | {"since": 1.0}])
    >>> merged == again | {"since": 1.0, "project": 7, "url": "u"}
    True
    """
    merged: dict[tuple[TaskId, str], _Json] = {}
    for failure in failures:
        key = failure["task"], "" if failure["task"] is not None else failure["sentence"]
        known = merged.setdefault(key, failure)
        merged[key] = max(known, failure, key=_time) | {
            **{name: known[name] or failure[name] for name in ("project", "job", "url")},
            "since": min(known["since"], failure["since"]),
        }
    return sorted(merged.values(), key=_time, reverse=True)


def _time(failure: _Json) -> float:
    at: float = failure["at"]
    return at


@dataclass(frozen=True)
class StoredStatus:
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
        polls: the projects that are polled for changes.
        trouble: what is wrong with the database, in one sentence; empty if it could be read.
    """

    jobs: tuple[Job, ...] = ()
    failing: tuple[FailingTask, ...] = ()
    hidden: Collection[int] = ()
    failure_count: FailureCount = field(default_factory=FailureCount)
    solved_at: Mapping[int, float] = field(default_factory=dict)
    failing_by_project: Mapping[int, int] = field(default_factory=dict)
    annotations: Mapping[int, GroupSums] = field(default_factory=dict)
    polls: tuple[Poll, ...] = ()
    trouble: str = ""


class StatusReport:
    """Read the status of the backend's parts, and of the tasks that run and that have failed."""

    def __init__(self, services: Services, tracker: TaskTracker) -> None:
        self._services = services
        self._tracker = tracker
        self._deleted = DeletedProjects(services.project_titles)
        self._failures = FailureStore(services.database)
        secrets = known_secrets(services.settings)
        self.serializer = StatusSerializer(services.files, secrets, self._deleted)
        self._versions = package_versions()
        self._started_at = time.time()

    def read(self) -> _Json:
        """Read the status of one moment.

        Returns:
            JSON: durations in seconds, sizes in bytes, times in seconds since the epoch.
        """
        now, batches = self._services.engine.snapshot(), self._services.task_runner.count_waiting()
        of_process = self._tracker.failures
        stored = self._read_database({each.task for each in of_process if type(each.task) is int})
        errors = self._errors(of_process, stored)
        jobs = [self.serializer.job(job) for job in stored.jobs]
        return {
            "at": time.time(),
            "started_at": self._started_at,
            "label_studio": self._services.files.browser_url,
            "connection": self._connection(stored.polls),
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
            "jobs": jobs,
            "jobs_trouble": stored.trouble,
            "served": _served(stored, jobs),
            "errors": errors[:ROWS_SHOWN],
            "failing": _count_failing(errors, stored),
            "caches": self._caches(now),
            "gpu_memory_bytes": gpu_memory_bytes(),
            "versions": self._versions,
        }

    def _read_database(self, failed: Collection[int]) -> StoredStatus:
        """Read the database; where that fails, the status holds nothing but the trouble."""
        try:
            return self._read_rows(failed)
        except SQLAlchemyError as error:
            log.warning("The database of jobs cannot be read: %s", error)
            if isinstance(error, OperationalError):
                return StoredStatus(trouble=f"{cause_of(error)}.")
            sentence = f"The database of jobs cannot be read: {type(error).__name__}."
            return StoredStatus(trouble=sentence)

    def _read_rows(self, failed: Collection[int]) -> StoredStatus:
        poller = self._services.change_poller
        newest = self._services.store.list_jobs(limit=_JOBS_READ * ROWS_SHOWN)
        jobs = [job for job in newest if not self._deleted.hides(job)][:ROWS_SHOWN]
        by_project = self._failures.by_project()
        hidden = self._deleted.hidden({id_: each.newest for id_, each in by_project.items()})
        totals = self._services.annotations.totals()
        return StoredStatus(
            jobs=tuple(sorted(jobs, key=lambda job: job.over)),
            failing=tuple(self._failures.failing(ROWS_SHOWN, hidden)),
            hidden=hidden,
            failure_count=self._failures.count(hidden),
            solved_at=self._failures.solved_at(failed),
            failing_by_project={id_: each.tasks for id_, each in by_project.items()},
            annotations={each: totals[each] for each in self._deleted.there(totals)},
            polls=tuple(poller.polls.list_polls()) if poller.client else (),
        )

    def _connection(self, polls: Iterable[Poll]) -> _Json:
        """Return what background threads have found out about Label Studio; ask it nothing."""
        poller, scrubbed = self._services.change_poller, self.serializer.scrub
        return {
            "trouble": scrubbed(self._services.token_watch.trouble),
            "poll_interval_s": poller.settings.poll_interval_s if poller.client else None,
            "polled": [
                {
                    "project": poll.project,
                    "url": self._services.files.task_url(poll.project),
                    "at": poll.polled or None,
                    "tasks": poll.tasks if poll.noted else None,
                    "trouble": scrubbed(poll.trouble),
                }
                for poll in polls
            ],
        }

    def _model(self, now: Snapshot) -> _Json:
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

    def _errors(self, of_process: Iterable[HandledTask], stored: StoredStatus) -> list[_Json]:
        """Merge what this process and the database know, but not of tasks predicted since."""
        solved = stored.solved_at
        there = [each for each in of_process if each.project not in stored.hidden]
        open_ = [each for each in there if each.ended_at > solved.get(_number(each.task), 0)]
        return merge_failures(
            [self.serializer.failed_task(record) for record in open_]
            + [self.serializer.failing_task(failing) for failing in stored.failing]
        )

    def _caches(self, now: Snapshot) -> _Json:
        return {
            "features": msgspec.to_builtins(now.cache),
            "words": {"hits": now.words_known, "misses": now.words_new},
            "pictures": msgspec.to_builtins(self._services.images.cache_stats),
        }


def _number(task: TaskId) -> int:
    """Return the id of a task, and 0, which none has, where it is no number."""
    return task if isinstance(task, int) else 0


def _count_failing(errors: Sequence[_Json], stored: StoredStatus) -> _Json:
    """Count the tasks without a whole prediction; since when: the time of the first failure."""
    known = {each.task for each in stored.failing}
    more = [each for each in errors if each["task"] is not None and each["task"] not in known]
    # Where the database has more than it has listed, those of this process may be among them.
    listed = len(stored.failing) == stored.failure_count.tasks
    count = stored.failure_count.tasks + (len(more) if listed else 0)
    times = [each["since"] for each in errors if each["task"] is not None]
    if stored.failure_count.since is not None:
        times.append(stored.failure_count.since)
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


def _served(stored: StoredStatus, jobs: Sequence[_Json]) -> list[_Json]:
    """Return the figures of each project that is connected, has a job, or was read from.

    The project with most failures comes first, then the one with most annotations.
    """
    tasks = {poll.project: poll.tasks if poll.noted else None for poll in stored.polls}
    with_job = {job["project"] for job in jobs if not job["project_gone"]}
    found = []
    for project in tasks.keys() | stored.annotations.keys() | with_job:
        sums = stored.annotations.get(project, GroupSums())
        figures = {
            "project": project,
            "tasks": tasks.get(project),
            "annotations": sum(sums.kinds.values()),
            "accepted_share": sums.total.accepted_share,
            "failing": stored.failing_by_project.get(project, 0),
        }
        found.append(figures)
    order = itemgetter("failing", "annotations", "project")
    return sorted(found, key=order, reverse=True)


def _waiting(now: Snapshot, batches: Mapping[int | None, int]) -> list[_Json]:
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


def _remaining(now: Snapshot, batches: Mapping[int | None, int], jobs: list[_Json]) -> int:
    """Count what is still to be done; a running job already counts the batches of its project."""
    running = {job["project"] for job in jobs if job["state"] == "running"}
    return (
        sum(job["remaining"] or 0 for job in jobs if not job["over"])
        + sum(count for project, count in batches.items() if project not in running)
        + sum(count for priority, count in now.waiting.items() if priority is not Priority.BATCH)
    )


def _eta_s(jobs: list[_Json]) -> float | None:
    """Return the seconds until the last running job ends; None if one of them has no estimate."""
    estimates = [job["eta_s"] for job in jobs if job["state"] == "running"]
    return max(estimates) if estimates and None not in estimates else None
