"""The report of a job that is over, and the plan of one that would be run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from backend.jobs.job import Job
from backend.prediction.failures import Failure
from backend.telemetry.logs import printable
from clearclip_core.quantities import quantity

#: The most different reasons of failures in a report, the most frequent first.
_MAX_REASONS: Final = 10


@dataclass(frozen=True)
class JobReport:
    """The result of a job.

    Attributes:
        failures: the tasks without a prediction.
    """

    job: Job
    failures: list[Failure] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every task has a prediction."""
        return self.job.state == "done" and not self.job.failed

    def __str__(self) -> str:
        job = self.job
        reasons = Counter(failure.reason for failure in self.failures).most_common(_MAX_REASONS)
        lines = [
            f"Job {job.id}, project {job.project}: {job.state}. {printable(job.reason)}".rstrip(),
            f"{job.done} done, {job.skipped} skipped, {job.failed} failed of {job.total}, "
            f"{job.rate:.1f} pictures/s",
            *(f"{count} x {printable(reason)}" for reason, count in reasons),
        ]
        if job.state == "paused":
            lines.append("The same command goes on from here.")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON; times are in seconds."""
        job = self.job
        return {
            "job": job.id,
            "project": job.project,
            "state": job.state,
            "reason": job.reason,
            "model_version": job.version,
            "total": job.total,
            "done": job.done,
            "skipped": job.skipped,
            "failed": job.failed,
            "seconds": round(job.worked_s, 3),
            "pictures_per_second": round(job.rate, 3),
            "failures": [{"task": each.task, "reason": each.reason} for each in self.failures],
        }


@dataclass(frozen=True)
class JobPlan:
    """The number of tasks that a job would predict.

    Attributes:
        version: the ``model_version`` of the predictions.
    """

    project: int
    version: str
    to_predict: int
    to_skip: int

    def __str__(self) -> str:
        return (
            f"Project {self.project}: {quantity(self.to_predict, 'task')} to predict as "
            f"{self.version!r}, {self.to_skip} with such a prediction."
        )
