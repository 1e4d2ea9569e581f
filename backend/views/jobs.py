"""What pages say of a job and of the projects that a backend serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from backend.jobs.job_store import JobKind
from backend.views.next_step import Facts, TaskCounts, next_step
from backend.views.text import Part, Sentence, ago, sentence
from clearclip_core.quantities import grouped, inflected

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


class JobCounts(Struct, frozen=True):
    """How far a job is, as its description has it."""

    kind: JobKind
    over: bool
    total: int | None
    done: int
    skipped: int
    failed: int

    @property
    def facts(self) -> tuple[Fact, ...]:
        """What it has done, and what it has not.

        Tasks that had a prediction before are none that it is to predict.

        >>> [each.text for each in JobCounts("project", True, 640, 320, 320, 0).facts]
        ['320 predicted of 320 tasks', '320 had a prediction before']
        """
        if self.kind == "withdrawal":
            facts = [Fact(f"{self._share('prediction', self.total)} deleted")]
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
    def _predicted(self) -> str:
        if self.total is None and not self.done:
            return "Nothing predicted" if self.over else "Nothing predicted yet"
        if self.total is None:
            return f"{grouped(self.done)} predicted"
        wanted = max(0, self.total - self.skipped)
        return f"{grouped(self.done)} predicted of {grouped(wanted)} {inflected(wanted, 'task')}"

    def _share(self, noun: str, total: int | None) -> str:
        if total is None:
            return f"{grouped(self.done)} {inflected(self.done, noun)}"
        return f"{grouped(self.done)} of {grouped(total)} {inflected(total, noun)}"


class JobNotes(Struct, frozen=True):
    """What the page of a project says below one of its jobs."""

    asked: str  # when it was asked for, and what it predicts with
    failures: str  # which of its failures are named; "" for all
    kept: Sentence  # the tasks whose predictions a withdrawal keeps; empty where there are none

    @classmethod
    def of(cls, job: Mapping[str, Any], task_url: Callable[[int], str | None]) -> JobNotes:
        """Make the notes on a job.

        Args:
            job: its description, with ``failures`` and ``kept``.
            task_url: returns the address of a task; None where people cannot reach it.
        """
        named, kept = len(job["failures"]), job.get("kept", ())
        is_short = job["failed"] > named
        return cls(
            asked=_asked(job),
            failures=_NAMED.format(named, grouped(job["failed"])) if is_short else "",
            kept=_kept(kept, task_url) if kept else (),
        )


def _asked(job: Mapping[str, Any]) -> str:
    """Say when a job was asked for."""
    told = f"Asked for {ago(job['created'])}"
    if job["started"]:
        told += f", started {ago(job['started'])}"
    return f"{told}, model version {job['version']}" if job["version"] else told


def _kept(tasks: Sequence[int], task_url: Callable[[int], str | None]) -> Sentence:
    """Name the tasks that keep their prediction."""
    parts: list[str | Part] = [_KEPT]
    for place, task in enumerate(tasks[:_MOST_KEPT]):
        parts += [", " if place else "", Part(str(task), task_url(task) or "")]
    if len(tasks) > _MOST_KEPT:
        parts.append(f", and {grouped(len(tasks) - _MOST_KEPT)} more")
    return sentence(*parts, ".")


class ServedProject(Struct, frozen=True):
    """A project on the dashboard: how far it is, and what to do next."""

    project: int
    progress: str  # how many tasks and annotations it has
    step: str  # what to do next
    share: float | None  # of the tasks that have an annotation, in [0, 1]; None: not known
    failing: str = ""  # tasks without a prediction; "" where there are none


def served_projects(
    served: Iterable[Mapping[str, Any]], jobs: Iterable[Mapping[str, Any]]
) -> tuple[ServedProject, ...]:
    """Return the projects of a dashboard in the given order.

    Args:
        served: figures of each, as the status has them.
        jobs: the newest jobs, as the status has them.
    """
    working = {each["project"]: each for each in jobs if each["state"] in ("running", "queued")}
    return tuple(_served(each, working.get(each["project"])) for each in served)


def _served(figures: Mapping[str, Any], job: Mapping[str, Any] | None) -> ServedProject:
    tasks, annotations, failing = figures["tasks"], figures["annotations"], figures["failing"]
    annotated = f"{grouped(annotations)} {inflected(annotations, 'annotation')}"
    share, progress = None, annotated
    if tasks is not None:
        progress = f"{grouped(tasks)} {inflected(tasks, 'task')}, {annotated}"
        share = min(1.0, annotations / tasks) if tasks else None

    return ServedProject(
        project=figures["project"],
        progress=progress,
        step=_step(tasks, annotations, job),
        share=share,
        failing=f"{grouped(failing)} without a prediction" if failing else "",
    )


def _step(tasks: int | None, annotations: int, job: Mapping[str, Any] | None) -> str:
    """Say what to do next by the rule of the project's page, with what the database knows.

    It does not know which tasks lack a mask, nor which versions wait: that takes Label Studio and
    the model, and nobody waits for them here.
    """
    is_predicting = job is not None and job["kind"] != "withdrawal"
    if is_predicting:
        return "Its tasks are being predicted"
    if tasks == 0:
        return "Import pictures"

    # Where nobody has counted the tasks, one is left at least.
    left = 1 if tasks is None else max(0, tasks - annotations)
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

    shown: tuple[Mapping[str, Any], ...]
    folded: tuple[Mapping[str, Any], ...]  # over, and not to be resumed

    @classmethod
    def of(cls, jobs: Sequence[Mapping[str, Any]]) -> JobFold:
        return cls(
            shown=tuple(each for each in jobs if not _is_folded(each)),
            folded=tuple(each for each in jobs if _is_folded(each)),
        )

    @property
    def head(self) -> str:
        """How many jobs are folded, as the head of the fold.

        >>> JobFold.of([{"over": True, "can_resume": False}, {"over": False}]).head
        '1 job is over'
        """
        count = len(self.folded)
        return f"{grouped(count)} {inflected(count, 'job is', 'jobs are')} over"


def _is_folded(job: Mapping[str, Any]) -> bool:
    return bool(job["over"]) and not job["can_resume"]


def errors_head(tasks: int, named: int) -> str:
    """Say how many tasks have no prediction, as the head of the fold that names the last ones.

    >>> errors_head(1, 1), errors_head(50, 20)
    ('1 task has none', '50 tasks have none: the last 20')
    """
    if not tasks:
        return "Requests that were refused"
    told = f"{grouped(tasks)} {inflected(tasks, 'task has', 'tasks have')} none"
    return told if tasks <= named else f"{told}: the last {named}"
