"""What became of the predictions of tasks, as far as the acceptance gate asks.

A label on a picture **needed no change** where none of its regions was deleted, relabelled, added
or received from another label, and its regions stand as they were or still cover nearly the same
pixels. A task needed none where no label of any of its pictures did: a thing that the prediction
missed is a change, too, although no score tells of it.

Tasks are counted, not regions: what happens to the regions of one picture hangs together. Of a task
with several annotations, one change by anybody is a change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from backend.feedback.comparison import LabelDiff
from backend.feedback.read_annotation import ReadAnnotation

#: IoU of a label before and after its correction from which on it needed no change.
LEAST_IOU: Final = 0.9


@dataclass(frozen=True)
class TaskOutcome:
    """What became of the prediction of a task.

    Attributes:
        task: its id.
        annotations: ids of its annotations.
        scores: name of each predicted label -> the lowest score of its regions, in [0, 1].
        changed: names of the labels that needed a change, predicted or not.
    """

    task: int
    annotations: tuple[int, ...]
    scores: Mapping[str, float]
    changed: frozenset[str]


def needed_change(change: LabelDiff) -> bool:
    """Return whether a label on an image needed a change.

    >>> needed_change(LabelDiff("car", corrected=1, predicted_px=98, true_px=100, shared_px=97))
    False
    >>> needed_change(LabelDiff("car", accepted=1, added=1, predicted_px=98, true_px=99,
    ...                         shared_px=98))
    True
    """
    if change.deleted or change.relabelled or change.added or change.received:
        return True
    return bool(change.corrected) and (change.iou or 0.0) < LEAST_IOU


def task_outcomes(reads: Iterable[ReadAnnotation]) -> tuple[list[TaskOutcome], int]:
    """Return the outcomes of tasks by ascending id, and the number of tasks without scores.

    Args:
        reads: annotations that began with predictions of one model version. Those that were read
            before scores were kept have none; their tasks are left out.
    """
    scores: dict[int, dict[str, float]] = {}
    changed: dict[int, set[str]] = {}
    annotations: dict[int, list[int]] = {}
    unscored: set[int] = set()
    for read in reads:
        own, needed = scores.setdefault(read.task, {}), changed.setdefault(read.task, set())
        annotations.setdefault(read.task, []).append(read.annotation)
        for change in read.changes:
            if change.score is not None:
                own[change.label] = min(change.score, own.get(change.label, 1.0))
            elif change.predicted_px:
                unscored.add(read.task)
            if needed_change(change):
                needed.add(change.label)
    found = [
        TaskOutcome(task, tuple(annotations[task]), own, frozenset(changed[task]))
        for task, own in sorted(scores.items())
        if task not in unscored
    ]
    return found, len(unscored)
