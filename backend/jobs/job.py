"""A job: tasks of a project to predict, or predictions to withdraw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

JobState = Literal["queued", "running", "paused", "cancelled", "done", "failed"]
JobKind = Literal["project", "new", "late", "withdrawal"]
Only = Literal["unlabeled", "all"]

#: States in which nothing more happens to a job.
OVER: Final = ("cancelled", "done", "failed")


@dataclass(frozen=True)
class Job:
    """The tasks of a project to predict, and how many of them are done.

    Times are in seconds since the epoch.

    Attributes:
        id: counts up from 1.
        kind: "project" for a whole project, as somebody asked for; "new" for its new tasks; "late"
            for tasks that a request has left over at its deadline; "withdrawal" for one that
            deletes the predictions of another job.
        only: "unlabeled" for tasks without annotations, or "all".
        view: tasks of this view of the data manager only; None for all.
        limit: the most predictions; None for all.
        task_count: how many tasks somebody has named; None where nobody has.
        lists_tasks: whether it is about the tasks of a list, see `JobStore.task_ids`; else it is
            about all tasks of the project.
        state: a queued job waits for a worker, a paused one for somebody who resumes it.
        version: the ``model_version`` of its predictions; empty before it has started.
        total: the number of its tasks; None before they are counted. Of a withdrawal, tasks whose
            predictions turn out to be of other runs are taken off.
        done: the number of tasks that are predicted; of a withdrawal, those whose prediction is
            deleted.
        skipped: the number of tasks that had a prediction of that version already; of a withdrawal,
            those that keep theirs.
        failed: the number of tasks without a prediction, see `FailureStore`.
        cursor: the task id up to which all tasks are done, skipped or failed.
        worked_s: the seconds that it ran, without pauses.
        created: when it was queued first.
        updated: when a column changed last.
        started: when it was leased first.
        finished: when it was done, cancelled or failed.
        leased_until: when the lease ends.
        withdraws: id of the job whose predictions a withdrawal deletes; None for other kinds.
        is_withdrawn: whether all predictions that it has written are known to be withdrawn.
    """

    id: int
    project: int
    kind: JobKind
    only: Only
    view: int | None
    limit: int | None
    task_count: int | None
    lists_tasks: bool
    state: JobState
    version: str
    total: int | None
    done: int
    skipped: int
    failed: int
    cursor: int
    worked_s: float
    reason: str
    created: float
    updated: float
    started: float | None
    finished: float | None
    owner: str
    leased_until: float
    withdraws: int | None = None
    is_withdrawn: bool = False

    @property
    def over(self) -> bool:
        """Whether it is cancelled, done or failed."""
        return self.state in OVER

    @property
    def remaining(self) -> int | None:
        """The number of tasks that are left; None before they are counted."""
        if self.total is None:
            return None
        return max(0, self.total - self.done - self.skipped - self.failed)

    @property
    def rate(self) -> float:
        """Predictions per second, over the time that it ran."""
        return self.done / self.worked_s if self.worked_s > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until it is done at this rate; None where the rate is unknown."""
        if self.remaining is None or (self.remaining and not self.rate):
            return None
        return self.remaining / self.rate if self.remaining else 0.0
