"""All that can be seen of a running backend, as one value: for ``/status`` and for the page.

Nothing here waits for the model, for Label Studio, or for a picture.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from backend.engine import Engine, Snapshot
from backend.images import KeptPictures
from backend.journal import Journal, Outcome, Running, TaskId
from backend.logs import known_secrets, scrub
from backend.metrics import gpu_memory_bytes
from backend.settings import Settings
from backend.store import Failure, Job, Store
from backend.studio import Studio

log = logging.getLogger(__name__)

#: Jobs that are shown, the newest; more are under ``/jobs``.
JOBS_SHOWN = 20

#: Failures that are shown.
FAILURES_SHOWN = 20

_PACKAGES = (
    "clearclip-label-studio",
    "torch",
    "open_clip_torch",
    "label-studio-ml",
    "label-studio-sdk",
    "flask",
)

Json = dict[str, Any]


class Overview:
    """Reads the parts of a backend.

    Args:
        settings: what is served; their secrets are cut out of all sentences.
        engine: the owner of the model.
        journal: what is worked on.
        store: the jobs.
        studio: whose tasks are linked to.
        kept_pictures: the pictures that annotators have open.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        journal: Journal,
        store: Store,
        studio: Studio,
        kept_pictures: Callable[[], KeptPictures],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._journal = journal
        self._store = store
        self._studio = studio
        self._kept_pictures = kept_pictures
        self._secrets = tuple(known_secrets(settings))
        self._versions = package_versions()
        self._started_at = time.time()

    def read(self) -> Json:
        """Everything; numbers in seconds, bytes and pieces, times in seconds since the epoch."""
        now, journal = self._engine.snapshot(), self._journal
        jobs, failures, trouble = self._from_store()
        waiting, pace = sum(now.waiting.values()), journal.pictures_per_second
        return {
            "at": time.time(),
            "started_at": self._started_at,
            "label_studio": self._studio.browser_url,
            "model": self._model(now),
            "queue": {urgency.name.lower(): count for urgency, count in now.waiting.items()},
            "waiting": [
                {"urgency": urgency.name.lower(), "project": project, "pictures": count}
                for (urgency, project), count in sorted(now.lines.items(), key=str)
            ],
            "vocabularies": now.vocabularies,
            "running": [self.running(each) for each in journal.running],
            "done": journal.done,
            "failed": journal.failed,
            "remaining": waiting + sum(job["remaining"] or 0 for job in jobs if not job["over"]),
            "pictures_per_second": round(pace, 3),
            "eta_s": _eta_s([job for job in jobs if job["state"] == "running"]),
            "projects": [
                {"project": project, "done": done, "failed": failed}
                for project, (done, failed) in reversed(journal.projects.items())
            ],
            "jobs": jobs,
            "jobs_trouble": trouble,
            "errors": self._errors(failures),
            "caches": self._caches(now),
            "gpu_memory_bytes": gpu_memory_bytes(),
            "versions": self._versions,
        }

    def job(self, job: Job) -> Json:
        """A job as JSON; of the tasks of one that names them, their number."""
        shown = asdict(job)
        shown["filter"] = shown.pop("only")
        shown["tasks"] = None if job.tasks is None else len(job.tasks)
        derived = ("over", "remaining", "rate", "eta_s")
        shown |= {name: getattr(job, name) for name in derived}
        shown["reason"] = self._clean(job.reason)
        return shown | {"url": self._studio.task_url(job.project)}

    def failure(self, failure: Failure, project: int | None) -> Json:
        """A task of a job that has no prediction."""
        return self._error(failure.task, project, failure.at, failure.reason, "", failure.job)

    def running(self, running: Running) -> Json:
        """A task that is worked on."""
        return {
            **asdict(running),
            "task": self._name(running.task),
            "url": self._studio.task_url(running.project, running.task),
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
            "features": asdict(now.cache),
            "words": {"hits": now.words_known, "misses": now.words_new},
            "pictures": asdict(self._kept_pictures()),
        }

    def _from_store(self) -> tuple[list[Json], list[tuple[Failure, int | None]], str]:
        """Jobs, their last failures with projects, and what is wrong with the database, if any."""
        try:
            jobs = sorted(self._store.list_jobs(limit=JOBS_SHOWN), key=lambda job: job.over)
            projects = {job.id: job.project for job in jobs}
            failures = self._store.failures(limit=FAILURES_SHOWN)
        except SQLAlchemyError as error:
            log.warning("The database of jobs cannot be read: %s", error)
            return [], [], f"The database of jobs cannot be read: {type(error).__name__}."
        with_project = [(failure, projects.get(failure.job)) for failure in failures]
        return [self.job(job) for job in jobs], with_project, ""

    def _errors(self, of_jobs: list[tuple[Failure, int | None]]) -> list[Json]:
        """The last failures, the latest first; a task that failed in a job is named once."""
        errors = [self._outcome(outcome) for outcome in self._journal.failures]
        known = {(error["project"], error["task"], error["sentence"]) for error in errors}
        for failure, project in of_jobs:
            error = self.failure(failure, project)
            if (project, error["task"], error["sentence"]) not in known:
                errors.append(error)
        return sorted(errors, key=lambda error: -error["at"])[:FAILURES_SHOWN]

    def _outcome(self, failed: Outcome) -> Json:
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
            "url": self._studio.task_url(project, task),
        }

    def _name(self, task: TaskId) -> TaskId:
        """A task's number; what stands in its place comes from outside."""
        return self._clean(task)[:100] if isinstance(task, str) else task

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


def _eta_s(jobs: list[Json]) -> float | None:
    """Seconds until the last of these jobs is done; None while nobody can say."""
    known = [job["eta_s"] for job in jobs]
    return max(known) if known and None not in known else None
