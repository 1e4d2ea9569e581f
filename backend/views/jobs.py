"""What pages say of a job and of the projects that a backend serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from backend.jobs.job_store import Job
from backend.views.next_step import Facts, TaskCounts, next_step
from backend.views.text import (
    Colour,
    Part,
    Sentence,
    ago,
    count_with_noun,
    duration,
    pace,
    sentence,
)
from clearclip_core.quantities import grouped, inflected

_KINDS: Final = {"new": "new tasks", "late": "tasks that were not ready in time"}
_ALL: Final = "all tasks"
_OPEN: Final = "tasks without annotations"
_COLOURS: Final[dict[str, Colour]] = {
    "running": "good",
    "queued": "wait",
    "paused": "wait",
    "failed": "bad",
}
_WITHDRAWAL: Final = (
    "Delete the predictions of job {} in Label Studio? Tasks that have an annotation or a draft "
    "keep theirs. Others of the same model version that were stored while it ran, or a minute "
    "before or after, go with them."
)

_ACTED: Final = {
    "pause": "is paused",
    "resume": "goes on",
    "cancel": "is cancelled",
    "withdraw": "deletes the predictions again",
}

_SAME_S: Final = 60.0  # between two times, below which the first is not told
_NAMED: Final = "the last {} of {} that failed; those that were predicted since are left out"
_KEPT: Final = (
    "These tasks keep their prediction: they have an annotation or a draft, or their predictions "
    "cannot be listed (the log says why): "
)
_MOST_KEPT: Final = 1000  # tasks of these that are named


class Fact(Struct, frozen=True):
    """A part of what is said of a job."""

    text: str
    is_bad: bool = False
    has_list: bool = False  # whether a page lists the tasks that it counts


class JobView(Job, frozen=True, kw_only=True, rename={"only": "filter"}):
    """A job as pages and programs show it; its reason holds no secrets."""

    can_resume: bool = False  # whether it would go on
    over: bool = False
    remaining: int | None = None
    rate: float = 0.0
    eta_s: float | None = None  # None, too, where Label Studio is away
    url: str | None = None  # of the project in Label Studio

    @property
    def what(self) -> str:
        """Which tasks it is for."""
        told = _KINDS.get(self.kind, _ALL if self.only == "all" else _OPEN)
        if self.kind == "withdrawal":
            told = f"withdrawal of job {self.withdraws}"
        if self.view:
            told += f", view {self.view}"
        if self.limit:
            told += f", at most {grouped(self.limit)}"
        return f"job {self.id}: {told}"

    @property
    def colour(self) -> Colour:
        """That of its state."""
        return _COLOURS.get(self.state, "soft")

    @property
    def processed(self) -> int:
        """How many of its tasks are dealt with."""
        return self.done + self.skipped + self.failed

    @property
    def bar(self) -> str:
        """The style of its bar; "" while it is at work."""
        if not self.over:
            return ""
        return "complete" if self.state == "done" else "over"

    @property
    def facts(self) -> tuple[Fact, ...]:
        """What it has done, and what it has not.

        Tasks that had a prediction before are none that it is to predict.
        """
        if self.kind == "withdrawal":
            facts = [Fact(f"{self._deleted} deleted")]
            if self.skipped:
                facts.append(Fact(f"{grouped(self.skipped)} kept", has_list=True))
        else:
            facts = [Fact(self._predicted)]
            if self.skipped:
                facts.append(Fact(f"{grouped(self.skipped)} had a prediction before"))

        if self.failed:
            facts.append(Fact(f"{grouped(self.failed)} failed", is_bad=True, has_list=True))
        return tuple(facts)

    @property
    def times(self) -> tuple[Fact, ...]:
        """How fast it is and how long it takes, or when it ended."""
        if self.state == "running" and self.rate and self.eta_s is not None:
            left = Fact(f"about {duration(self.eta_s)} left")
            return Fact(f"{pace(self.rate)} tasks/s"), left
        if not self.finished:
            return ()
        took = f", took {duration(self.worked_s)}" if self.worked_s >= 1 else ""
        return (Fact(f"{ago(self.finished)}{took}"),)

    @property
    def can_withdraw(self) -> bool:
        """Whether it has predictions that somebody may delete."""
        return self.over and self.done > 0 and self.kind != "withdrawal"

    @property
    def withdrawal_question(self) -> str:
        """What to ask before its predictions are deleted."""
        return _WITHDRAWAL.format(self.id)

    @property
    def cancel_question(self) -> str:
        """What to ask before it is cancelled."""
        return f"Cancel job {self.id}? Its predictions so far stay."

    @property
    def _predicted(self) -> str:
        if self.total is None and not self.done:
            return "Nothing predicted" if self.over else "Nothing predicted yet"
        if self.total is None:
            return f"{grouped(self.done)} predicted"
        wanted = max(0, self.total - self.skipped)
        return f"{grouped(self.done)} predicted of {grouped(wanted)} {inflected(wanted, 'task')}"

    @property
    def _deleted(self) -> str:
        if self.total is None:
            return count_with_noun(self.done, "prediction")
        return f"{grouped(self.done)} of {count_with_noun(self.total, 'prediction')}"


class Failure(Struct, frozen=True, kw_only=True):
    """A task without a prediction, or a request that was refused with all of its tasks."""

    task: int | None = None
    project: int | None = None
    job: int | None = None
    at: float  # when it was tried last, in seconds since the epoch
    since: float  # when it failed first
    sentence: str
    url: str | None = None  # of the task in Label Studio

    @property
    def name(self) -> str:
        """The name of its task."""
        return "No task number" if self.task is None else f"Task {self.task}"

    @property
    def first(self) -> str:
        """When it failed first, after when it was tried last; "" where that is the same."""
        return f", first {ago(self.since)}" if self.at - self.since >= _SAME_S else ""


class JobDetail(JobView, frozen=True, kw_only=True, rename={"only": "filter"}):
    """A job with its newest failures, or with the tasks that a withdrawal keeps."""

    failures: tuple[Failure, ...] = ()
    kept: tuple[int, ...] | UnsetType = UNSET


class JobNotes(Struct, frozen=True):
    """What the page of a project says below one of its jobs."""

    asked: str  # when it was asked for, and what it predicts with
    failures: str  # which of its failures are named; "" for all
    kept: Sentence  # the tasks whose predictions a withdrawal keeps; empty where there are none

    @classmethod
    def of(cls, job: JobDetail, task_url: Callable[[int], str | None]) -> JobNotes:
        """Make the notes on a job.

        Args:
            job: the job.
            task_url: returns the address of a task; None where people cannot reach it.
        """
        named = len(job.failures)
        return cls(
            asked=_asked(job),
            failures=_NAMED.format(named, grouped(job.failed)) if job.failed > named else "",
            kept=_kept(job.kept, task_url) if job.kept else (),
        )


def _asked(job: Job) -> str:
    """Say when a job was asked for."""
    told = f"Asked for {ago(job.created)}"
    if job.started:
        told += f", started {ago(job.started)}"
    return f"{told}, model version {job.version}" if job.version else told


def _kept(tasks: Sequence[int], task_url: Callable[[int], str | None]) -> Sentence:
    """Name the tasks that keep their prediction."""
    parts: list[str | Part] = [_KEPT]
    for place, task in enumerate(tasks[:_MOST_KEPT]):
        parts += [", " if place else "", Part(str(task), task_url(task) or "")]
    if len(tasks) > _MOST_KEPT:
        parts.append(f", and {grouped(len(tasks) - _MOST_KEPT)} more")
    return sentence(*parts, ".")


class ProjectFigures(Struct, frozen=True, kw_only=True):
    """The figures of a project that is connected, has a job, or was read from."""

    project: int
    tasks: int | None = None  # None before the first poll
    left: int | None = None  # of these, those to be annotated; None: never counted
    annotations: int = 0
    accepted_share: float | None = None  # of predicted regions, in [0, 1]; None: none was compared
    failing: int = 0  # tasks without a prediction


class ServedProject(Struct, frozen=True):
    """A project on the dashboard: how far it is, and what to do next."""

    project: int
    progress: str  # how many tasks and annotations it has
    step: str  # what to do next
    share: float | None  # of the tasks that are not left to annotate, in [0, 1]; None: not known
    failing: str = ""  # tasks without a prediction, after the progress; "" where there are none
    pictured: int | None = None  # the task whose picture stands for it; None: nothing is predicted


def served_projects(
    served: Iterable[ProjectFigures], jobs: Iterable[Job], pictured: Mapping[int, int]
) -> tuple[ServedProject, ...]:
    """Return the projects of a dashboard in the given order.

    Args:
        served: figures of each, as the status has them.
        jobs: the newest jobs, as the status has them.
        pictured: project -> the task whose picture stands for it.
    """
    working = {each.project: each for each in jobs if each.state in ("running", "queued")}
    rows = (_served(each, working.get(each.project)) for each in served)
    return tuple(replace(each, pictured=pictured.get(each.project)) for each in rows)


def _served(figures: ProjectFigures, job: Job | None) -> ServedProject:
    tasks, left, failing = figures.tasks, figures.left, figures.failing
    progress = [count_with_noun(figures.annotations, "annotation")]
    share = None
    if tasks and left is not None:
        progress.insert(0, f"{grouped(left)} left")
        share = max(0.0, 1 - left / tasks)
    if tasks is not None:
        progress.insert(0, count_with_noun(tasks, "task"))

    return ServedProject(
        project=figures.project,
        progress=", ".join(progress),
        step=_step(tasks, left, figures.annotations, job),
        share=share,
        failing=f" · {grouped(failing)} without a prediction" if failing else "",
    )


def _step(tasks: int | None, left: int | None, annotations: int, job: Job | None) -> str:
    """Say what to do next by the rule of the project's page, with what the database knows.

    It does not know which tasks lack a mask, nor which versions wait: that takes Label Studio and
    the model, and nobody waits for them here.
    """
    is_predicting = job is not None and job.kind != "withdrawal"
    if is_predicting:
        return "Its tasks are being predicted"
    if tasks == 0:
        return "Import pictures"

    left = 1 if left is None else left  # where nobody has counted them
    counts = TaskCounts(tasks=annotations + left, left=left, waiting=0, older=0)
    step = next_step(Facts(counts=counts, corrected=annotations))
    if step == "correct":
        return "Correct the next pictures" if annotations else "Correct the first pictures"
    return "Make a data set"


def first_step(has_others: bool) -> str:
    """Say what to do where no project is connected.

    Args:
        has_others: whether Label Studio has told of projects.
    """
    if has_others:
        return "No project is connected to this backend yet. Set up the first one here:"
    return (
        "No project is connected to this backend yet. Make one in Label Studio and import its "
        "pictures; it is offered here within a minute."
    )


class JobFold(Struct, frozen=True):
    """Jobs that somebody may act on, and those that a page folds."""

    shown: tuple[JobView, ...]
    folded: tuple[JobView, ...]  # over, and not to be resumed

    @classmethod
    def of(cls, jobs: Sequence[JobView]) -> JobFold:
        return cls(
            shown=tuple(each for each in jobs if not _is_folded(each)),
            folded=tuple(each for each in jobs if _is_folded(each)),
        )

    @property
    def head(self) -> str:
        """How many jobs are folded, as the head of the fold."""
        count = len(self.folded)
        return f"{grouped(count)} {inflected(count, 'job is', 'jobs are')} over"


def _is_folded(job: JobView) -> bool:
    return job.over and not job.can_resume


def errors_head(tasks: int, named: int) -> str:
    """Say how many tasks have no prediction, as the head of the fold that names the last ones.

    >>> errors_head(1, 1), errors_head(50, 20)
    ('1 task has none', '50 tasks have none: the last 20')
    """
    if not tasks:
        return "Requests that were refused"
    told = f"{grouped(tasks)} {inflected(tasks, 'task has', 'tasks have')} none"
    return told if tasks <= named else f"{told}: the last {named}"


def acted(action: str, job: str, url: str) -> Sentence:
    """Say what somebody has done to a job; () where there was nothing.

    Args:
        action: the last part of the action's route.
        job: number of the job, as the query has it.
        url: address of all jobs.
    """
    if action not in _ACTED or not job.isdecimal():
        return ()
    return sentence(Part(f"Job {int(job)}", f"{url}/{int(job)}"), f" {_ACTED[action]}.")
