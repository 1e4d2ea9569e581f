"""Decide on the next step of a project: for its page, and for the dashboard."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from backend.feedback.report.hours_left import Hours, hours
from backend.settings import Adapt
from backend.views.text import count_with_noun
from clearclip_core.quantities import grouped

#: A step; "look" for what needs a look before anybody can go on, "" where nothing is left to do.
Step = Literal["words", "prelabel", "correct", "learn", "export", "look", ""]


class TaskCounts(Struct, frozen=True):
    """What Label Studio says of the tasks and labels of a project now."""

    tasks: int
    left: int  # tasks that Label Studio does not take for finished, without skipped ones
    waiting: int  # of these, without an annotation and a prediction of the model version in use
    older: int  # of those that wait, tasks with a prediction of another version
    skipped: int = 0  # tasks without an annotation that somebody has skipped
    failed: int = 0  # of those that wait, those that failed when they were last predicted
    failed_older: int = 0  # of those that failed, tasks with a prediction of another version
    adapt: Adapt = "auto"  # who decides what corrections teach
    tools: str = ""  # how to get tools that ask for masks; empty where there are some
    shown: bool = True  # whether Label Studio shows somebody's predictions
    unknown: dict[str, int] = {}  # label that the config lacks -> regions
    lost: dict[str, int] = {}  # control that the config lacks -> regions
    withheld: int = 0  # of those that wait, those that an experiment leaves out
    begun: int = 0  # of those left, tasks with an annotation: they need one of somebody else
    needed: int = 0  # annotations that the tasks left need

    @property
    def done(self) -> int:
        """The number of tasks that Label Studio takes for finished."""
        return self.tasks - self.left - self.skipped

    @property
    def annotated(self) -> int:
        """The number of tasks with an annotation."""
        return self.done + self.begun

    @property
    def unseen(self) -> int:
        """The number of tasks left that have no annotation: a job predicts these."""
        return self.left - self.begun

    @property
    def to_predict(self) -> int:
        """The number of tasks that a job would predict."""
        return self.waiting - self.failed - self.withheld


class Facts(Struct, frozen=True, kw_only=True):
    """What decides on the next step of a project."""

    counts: TaskCounts | None = None  # None where Label Studio never said
    words_checked: bool = False  # the words of now are, or are being, checked
    predicting: bool = False  # whether a job predicts its tasks, or will by itself
    version_waits: bool = False  # whether a learned version waits for somebody to decide
    made_again: bool = False  # whether the version is being made again, for another model
    corrected: int = 0  # tasks that were corrected since the last data set


def next_step(facts: Facts) -> Step:
    """Return the step to do next.

    It is one that a person can do now, and that changes something: learning goes on by itself, and
    pictures that cannot be read stop nobody from correcting the others.

    >>> next_step(Facts(counts=TaskCounts(tasks=15, left=15, waiting=3, older=0, failed=3)))
    'correct'
    """
    counts = facts.counts
    if facts.version_waits:
        return "learn"  # one press, and what is predicted from then on is better
    if counts is None:
        return ""

    if step := _step_to_masks(counts, facts):
        return step
    if counts.left:
        return "look" if counts.failed == counts.left and not facts.predicting else "correct"
    return "export" if facts.corrected else ""


def _step_to_masks(counts: TaskCounts, facts: Facts) -> Step:
    """Return the step by which tasks get masks that they lack; "" where nobody has to do one."""
    if not counts.to_predict or facts.predicting:
        return ""
    if counts.to_predict > counts.older and not facts.words_checked:
        return "words"
    return "" if facts.made_again else "prelabel"  # made now, masks would be worse than before


def describe_progress(counts: TaskCounts, left: Hours | None) -> str:
    """Say how far the tasks are, after the number of those that are done.

    >>> describe_progress(TaskCounts(tasks=9, left=4, waiting=0, older=0, begun=1), Hours(0.2))
    "of 9 tasks done, 4 left (1 needs somebody else, too): about 12 min at today's pace"
    """
    said = f"of {count_with_noun(counts.tasks, 'task')} done, {grouped(counts.left)} left"
    if counts.begun:
        need = "needs" if counts.begun == 1 else "need"
        said += f" ({grouped(counts.begun)} {need} somebody else, too)"
    if counts.skipped:
        said += f", {grouped(counts.skipped)} skipped"
    if left is not None:
        said += f": about {hours(left.hours)} at today's pace"
    return said


def describe_masks(counts: TaskCounts) -> str:
    """Say how many tasks have masks of the version in use, and why the others have none.

    Each of the others is counted once, after the number of those that have them.

    >>> describe_masks(TaskCounts(20, 20, waiting=3, older=3, failed=3, failed_older=3))
    'of 20 tasks left to correct have masks of the version in use; 3 could not be predicted and \
keep older ones'
    """
    has = "has" if counts.unseen - counts.waiting == 1 else "have"
    tasks = count_with_noun(counts.unseen, "task")
    said = f"of {tasks} left to correct {has} masks of the version in use"
    if older := counts.older - counts.failed_older:
        said += f"; {grouped(older)} {'has' if older == 1 else 'have'} older ones"
    if failed := counts.failed - counts.failed_older:
        said += f"; {grouped(failed)} could not be predicted"
    if kept := counts.failed_older:
        keep = "keeps" if kept == 1 else "keep"
        said += f"; {grouped(kept)} could not be predicted and {keep} older ones"
    return said
