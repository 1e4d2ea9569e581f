"""Turn jobs, tasks and failures into JSON: with links to Label Studio, without secrets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from backend.jobs.job_store import Job
from backend.label_studio.download import LabelStudioFiles
from backend.prediction.failures import FailingTask
from backend.telemetry.logs import scrub
from backend.telemetry.task_tracker import HandledTask, TaskId, TrackedTask
from backend.web.pages.projects import DeletedProjects

#: Longest task id that is shown, in characters.
_TASK_ID_LENGTH = 100


class StatusSerializer:
    """Serialize what `StatusReport` and the job routes answer."""

    def __init__(
        self, files: LabelStudioFiles, secrets: Iterable[str], deleted: DeletedProjects
    ) -> None:
        self._deleted = deleted
        self._files = files
        self._secrets = tuple(secrets)

    def job(self, job: Job) -> dict[str, Any]:
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

    def running_task(self, running: TrackedTask) -> dict[str, Any]:
        """Serialize a task that is being worked on."""
        return {
            "task": self._task_id(running.task),
            "project": running.project,
            "urgency": running.priority,
            "seconds": running.seconds,
            "stage": running.stages.now,
            "url": self._files.task_url(running.project, running.task),
        }

    def failed_task(self, record: HandledTask) -> dict[str, Any]:
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

    def failing_task(self, failing: FailingTask) -> dict[str, Any]:
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


def merge_failures(failures: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
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
    merged: dict[tuple[TaskId, str], dict[str, Any]] = {}
    for failure in failures:
        key = failure["task"], "" if failure["task"] is not None else failure["sentence"]
        known = merged.setdefault(key, failure)
        merged[key] = max(known, failure, key=_time) | {
            **{name: known[name] or failure[name] for name in ("project", "job", "url")},
            "since": min(known["since"], failure["since"]),
        }
    return sorted(merged.values(), key=_time, reverse=True)


def _time(failure: dict[str, Any]) -> float:
    at: float = failure["at"]
    return at
