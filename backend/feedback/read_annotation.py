"""What was read of an annotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backend.feedback.comparison import LabelDiff

#: How an annotation began, or why there is nothing to compare; see `ReadAnnotation`.
AnnotationOrigin = Literal[
    "compared", "scratch", "copy", "converted", "foreign", "lost", "skipped", "broken"
]


@dataclass(frozen=True)
class ReadAnnotation:
    """What was read of an annotation. Times are in seconds since the epoch.

    Attributes:
        annotation: its id.
        project: the id of its project.
        task: the id of its task.
        kind: "compared": it began with a prediction of this backend and was compared with it.
            "scratch", "copy", "foreign", "lost": it began from nothing, from another annotation,
            with a prediction of another model, or with a prediction that is deleted by now.
            "converted": it is a prediction as it was. "skipped", "broken": see `reason`.
        version: the ``model_version`` of the prediction that it was compared with.
        annotator: the id of the user who made it.
        seconds: how long it took in all, as Label Studio has measured it.
        created: when it was submitted first.
        updated: when it was changed last.
        changes: what became of each label on each image.
        reason: why it is broken, in a sentence.
    """

    annotation: int
    project: int
    task: int
    kind: AnnotationOrigin
    version: str = ""
    annotator: int | None = None
    seconds: float | None = None
    created: float = 0.0
    updated: float = 0.0
    changes: tuple[LabelDiff, ...] = ()
    reason: str = ""
