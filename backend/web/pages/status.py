"""All that can be seen of a running backend, as one value: for ``/status`` and for the page.

Nothing here waits for the model, for Label Studio, or for a picture.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from backend.errors import ModelUnavailable
from backend.feedback.annotation_store import Annotations
from backend.feedback.learning.version_registry import VersionRegistry
from backend.feedback.learning.versions import Summary
from backend.inference.engine import Engine, Snapshot
from backend.inference.image_request import Priority
from backend.jobs.job_store import Job, JobStore
from backend.label_studio.files import LabelStudioFiles
from backend.label_studio.image_loader import ImageReader
from backend.prediction.deadline import DeadlineRunner
from backend.prediction.failures import Failure, FailureStore
from backend.prediction.outbox import PredictionOutbox
from backend.settings import Settings
from backend.telemetry.logs import known_secrets, scrub
from backend.telemetry.task_tracker import Running, TaskId, TaskRecord, TaskTracker
from backend.web.metrics import gpu_memory_bytes

log = logging.getLogger(__name__)

#: Jobs that are shown, the newest; more are under ``/jobs``.
JOBS_SHOWN = 20

#: Failures that are shown.
FAILURES_SHOWN = 20

#: Longest name of a task that is shown.
_NAME_LENGTH = 100

_PACKAGES = (
    "clearclip-label-studio",
    "torch",
    "open_clip_torch",
    "label-studio-ml",
    "label-studio-sdk",
    "flask",
)

Json = dict[str, Any]


class StatusReport:
    """Reads the parts of a backend.

    Args:
        settings: what is served; their secrets are cut out of all sentences.
        engine: the owner of the model.
        journal: what is worked on.
        store: the jobs.
        results: predictions that are on their way to Label Studio.
        pending: tasks of batches that wait.
        files: knows the address of Label Studio, to link to its tasks.
        reader: keeps the pictures that annotators have open.
        registry: what projects have learned.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        tracker: TaskTracker,
        store: JobStore,
        results: PredictionOutbox,
        pending: DeadlineRunner,
        files: LabelStudioFiles,
        reader: ImageReader,
        registry: VersionRegistry,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._tracker = tracker
        self._store = store
        self._failures = FailureStore(store)
        self._results = results
        self._pending = pending
        self._files = files
        self._reader = reader
        self._registry = registry
        self._annotations = Annotations(store, "")
        self._secrets = tuple(known_secrets(settings))
        self._versions = package_versions()
        self._started_at = time.time()

    def read(self) -> Json:
        """Everything; numbers in seconds, bytes and pieces, times in seconds since the epoch."""
        now, tracker = self._engine.snapshot(), self._tracker
        batches = self._pending.count_waiting()
        jobs, failures, unwritten, reports, trouble = self._from_store()
        return {
            "at": time.time(),
            "started_at": self._started_at,
            "label_studio": self._files.browser_url,
            "model": self._model(now),
            "queue": {priority.word: count for priority, count in now.waiting.items()},
            "waiting": _waiting(now, batches),
            "vocabularies": now.vocabularies,
            "running": [self.running(each) for each in tracker.running],
            "done": tracker.done,
            "failed": tracker.failed,
            "remaining": _remaining(now, batches, jobs),
            "unwritten": unwritten,
            "pictures_per_second": round(tracker.pictures_per_second, 3),
            "eta_s": _eta_s([job for job in jobs if job["state"] == "running"]),
            "projects": [
                {"project": project, "done": done, "failed": failed}
                for project, (done, failed) in reversed(tracker.projects.items())
            ],
            "jobs": jobs,
            "jobs_trouble": trouble,
            "reports": reports,
            "learning": self._learning(),
            "errors": self._errors(failures),
            "caches": self._caches(now),
            "gpu_memory_bytes": gpu_memory_bytes(),
            "versions": self._versions,
        }

    def job(self, job: Job) -> Json:
        """A job as JSON; of the tasks of one that names them, their number."""
        return {
            "id": job.id,
            "project": job.project,
            "kind": job.kind,
            "view": job.view,
            "limit": job.limit,
            "tasks": None if job.tasks is None else len(job.tasks),
            "scope": job.scope,
            "state": job.state,
            "version": job.version,
            "total": job.total,
            "done": job.done,
            "skipped": job.skipped,
            "failed": job.failed,
            "cursor": job.cursor,
            "worked_s": job.worked_s,
            "reason": self._clean(job.reason),
            "created": job.created,
            "updated": job.updated,
            "started": job.started,
            "finished": job.finished,
            "owner": job.owner,
            "leased_until": job.leased_until,
            "filter": job.only,
            "over": job.over,
            "remaining": job.remaining,
            "rate": job.rate,
            "eta_s": job.eta_s,
            "url": self._files.task_url(job.project),
        }

    def failure(self, failure: Failure, project: int | None) -> Json:
        """A task without a prediction, as the store has it."""
        job = failure.job or None
        return self._error(failure.task, project, failure.at, failure.reason, "", job)

    def running(self, running: Running) -> Json:
        """A task that is worked on."""
        return {
            "task": self._name(running.task),
            "project": running.project,
            "urgency": running.priority,
            "seconds": running.seconds,
            "stage": running.stage,
            "url": self._files.task_url(running.project, running.task),
        }

    def _learning(self) -> Json:
        """What projects have learned, all of them together; nothing where that cannot be read."""
        try:
            found = self._registry.summary()
        except (SQLAlchemyError, ModelUnavailable):  # which is told of the jobs and of the model
            found = Summary()
        newest = found.newest
        return {
            "live": found.live,
            "pictures": found.pictures,
            "last_step": None if newest is None else newest.to_json(),
        }

    def _model(self, now: Snapshot) -> Json:
        return {
            "name": self._settings.model,
            "method": self._settings.method,
            "device": now.device,
            "precision": now.precision,
            "state": now.status.state,
            "reason": self._clean(now.status.reason),
            "windows_at_once": now.windows_at_once,
            "pictures": now.done,
            "batches": now.batches,
        }

    def _caches(self, now: Snapshot) -> Json:
        return {
            "features": now.cache.to_json(),
            "words": {"hits": now.words_known, "misses": now.words_new},
            "pictures": self._reader.cache_stats.to_json(),
        }

    def _from_store(
        self,
    ) -> tuple[list[Json], list[tuple[Failure, int | None]], int, list[int], str]:
        """Jobs, the last failures with their projects, how many predictions Label Studio has yet
        to get, the projects that have a report, and what is wrong with the database, if anything.
        """
        try:
            jobs = sorted(self._store.list_jobs(limit=JOBS_SHOWN), key=lambda job: job.over)
            failures = self._failures.newest(limit=FAILURES_SHOWN)
            unwritten = sum(self._results.count_waiting().values())
            reports = self._annotations.projects()
        except SQLAlchemyError as error:
            log.warning("The database of jobs cannot be read: %s", error)
            return [], [], 0, [], f"The database of jobs cannot be read: {type(error).__name__}."
        projects = {job.id: job.project for job in jobs}
        with_project = [(failure, projects.get(failure.job)) for failure in failures]
        return [self.job(job) for job in jobs], with_project, unwritten, reports, ""

    def _errors(self, of_store: list[tuple[Failure, int | None]]) -> list[Json]:
        """The last failures, the latest first; one that came again and again is named once."""
        errors: dict[tuple[TaskId, str], Json] = {}
        for error in (
            *(self._failed(record) for record in self._tracker.failures),
            *(self.failure(failure, project) for failure, project in of_store),
        ):
            key = error["task"], error["sentence"]
            known = errors.setdefault(key, error)
            errors[key] = max(known, error, key=lambda one: one["at"]) | {
                "project": known["project"] or error["project"],
                "job": known["job"] or error["job"],
                "url": known["url"] or error["url"],
            }
        return sorted(errors.values(), key=lambda one: -one["at"])[:FAILURES_SHOWN]

    def _failed(self, failed: TaskRecord) -> Json:
        return self._error(
            failed.task, failed.project, failed.ended_at, failed.sentence, failed.reason, None
        )

    def _error(
        self,
        task: TaskId,
        project: int | None,
        at: float,
        sentence: str,
        reason: str,
        job: int | None,
    ) -> Json:
        return {
            "task": self._name(task),
            "project": project,
            "job": job,
            "at": at,
            "reason": reason,
            "sentence": self._clean(sentence),
            "url": self._files.task_url(project, task),
        }

    def _name(self, task: TaskId) -> TaskId:
        """A task's number; what stands in its place comes from outside."""
        return scrub(task, self._secrets, _NAME_LENGTH) if isinstance(task, str) else task

    def _clean(self, sentence: str) -> str:
        return scrub(sentence, self._secrets)


def package_versions() -> dict[str, str]:
    """The versions of what matters, Python's own too; empty for what is not installed."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = ""
    return versions


def _waiting(now: Snapshot, batches: Mapping[int | None, int]) -> list[Json]:
    """Who waits: pictures that annotators wait for, and tasks of batches, those in work too."""
    lines = {
        key: count for key, count in now.waiting_by_project.items() if key[0] is not Priority.BATCH
    }
    lines |= {(Priority.BATCH, project): count for project, count in batches.items()}
    return [
        {"urgency": priority.word, "project": project, "count": count}
        for (priority, project), count in sorted(lines.items(), key=lambda line: line[0][0])
    ]


def _remaining(now: Snapshot, batches: Mapping[int | None, int], jobs: list[Json]) -> int:
    """What is still to be done: by jobs, and by batches of projects that no job works on."""
    running = {job["project"] for job in jobs if job["state"] == "running"}
    return (
        sum(job["remaining"] or 0 for job in jobs if not job["over"])
        + sum(count for project, count in batches.items() if project not in running)
        + sum(count for priority, count in now.waiting.items() if priority is not Priority.BATCH)
    )


def _eta_s(jobs: list[Json]) -> float | None:
    """Seconds until the last of these jobs is done; None while nobody can say."""
    known = [job["eta_s"] for job in jobs]
    return max(known) if known and None not in known else None
