"""The five steps of a project: what is known of them, and which one comes next."""

from typing import Any, Literal

import msgspec

from backend.feedback.experiment import Experiments
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.task_filter import TaskFilter
from backend.prediction.failures import FailureStore
from backend.prediction.predictor import ModelVersions
from backend.settings import Adapt, Settings

#: A step; "look" for what needs a look before anybody can go on, "" where nothing is left to do.
Step = Literal["words", "prelabel", "correct", "learn", "export", "look", ""]


class TaskCounts(msgspec.Struct, frozen=True):
    """What Label Studio says of the tasks and labels of a project now."""

    tasks: int
    left: int  # tasks without an annotation that nobody has skipped
    waiting: int  # of these, tasks without a prediction of the model version in use
    older: int  # of those that wait, tasks with a prediction of another version
    skipped: int = 0  # tasks without an annotation that somebody has skipped
    failed: int = 0  # of those that wait, those that failed when they were last predicted
    adapt: Adapt = "auto"  # who decides what corrections teach
    asks: bool = True  # whether a tool of the label config asks for masks
    shown: bool = True  # whether Label Studio shows somebody's predictions
    unknown: dict[str, int] = {}  # label that the config lacks -> regions
    withheld: int = 0  # of those that wait, those that an experiment leaves out

    @property
    def done(self) -> int:
        """The number of tasks with an annotation."""
        return self.tasks - self.left - self.skipped

    @property
    def to_predict(self) -> int:
        """The number of tasks that a job would predict."""
        return self.waiting - self.failed - self.withheld


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What decides on the next step of a project."""

    counts: TaskCounts | None = None  # None where Label Studio never said
    words_checked: bool = False  # the words of now are, or are being, checked
    predicting: bool = False  # whether a job predicts its tasks, or will by itself
    version_waits: bool = False  # whether a learned version waits for somebody to decide
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
    if counts.to_predict and not facts.predicting:
        are_new = counts.to_predict > counts.older
        return "words" if are_new and not facts.words_checked else "prelabel"
    if counts.left:
        return "look" if counts.failed == counts.left and not facts.predicting else "correct"
    return "export" if facts.corrected else ""


def count_tasks(
    client: LabelStudioClient,
    versions: ModelVersions,
    settings: Settings,
    failures: FailureStore,
    experiments: Experiments,
    project: int,
) -> tuple[TaskCounts, LabelConfig]:
    """Ask Label Studio for the counts of a project, and for its label config.

    Raises:
        LabelConfigError: the label config has nothing to draw.
        ModelUnavailable: the weights are not there.
        StudioRefused: there is no such project for this token.
        StudioUnreachable: Label Studio does not answer.
    """
    found = client.project(project)
    config = parse_label_config(found.label_config, settings)
    version = versions.current(config, project)

    def count(**more: Any) -> int:
        return client.count(project, TaskFilter(labeled=False, **more))

    lacking = {"skipped": False, "without_version": version}
    left = count(skipped=False)
    waiting = count(**lacking) if left else 0
    older = count(**lacking, predicted=True) if waiting else 0
    withheld = experiments.withheld(project) if waiting else ()
    failing = tuple({*failures.of_project(project)} - {*withheld}) if waiting else ()
    counts = TaskCounts(
        tasks=found.task_number or 0,
        left=left,
        waiting=waiting,
        older=older,
        skipped=count(skipped=True),
        failed=count(**lacking, ids=failing) if failing else 0,
        adapt=config.adapt,
        asks=config.asks,
        shown=bool(found.model_version),
        withheld=count(**lacking, predicted=False, ids=withheld) if withheld else 0,
        unknown=config.unknown_labels(client.region_counts(project)),
    )
    return counts, config
