"""Annotations and predictions as Label Studio stores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

#: The shortest and the longest working time that is believed, in seconds: up to a week.
LEAST_SECONDS: Final = 0.1
MOST_SECONDS: Final = 7 * 86400.0


@dataclass(frozen=True)
class ConnectedBackend:
    """An ML backend that is connected to a project.

    Attributes:
        url: its address; empty where Label Studio has none.
        created: when it was connected, in seconds since the epoch.
    """

    url: str
    created: float


@dataclass(frozen=True)
class StoredPrediction:
    """A prediction that Label Studio has stored.

    Attributes:
        id: its own.
        task: the task's.
        version: its ``model_version``.
        created: time at which it was stored, in seconds since the epoch.
    """

    id: int
    task: int
    version: str
    created: float


@dataclass(frozen=True)
class Annotation:
    """An annotation as Label Studio has it now. Times are in seconds since the epoch.

    Attributes:
        id: its own.
        task: the task's.
        project: the project's.
        result: its regions, as they came.
        prediction: the prediction that it began with; None where there was none, or none is left.
        parent: the annotation that it is a copy of.
        skipped: whether the annotator has skipped the task.
        seconds: working time on it in all, Label Studio's ``lead_time``; None where not measured,
            0 where it is a time that nobody can have worked.
        annotator: id of its annotator.
        created: time of its submission.
        updated: time of its last change.
        ground_truth: whether it is marked as the ground truth of its task.
        import_id: number of the import that made it, see
            `backend.label_studio.annotation_writer.import_id`; None where none did.
    """

    id: int
    task: int
    project: int
    result: Sequence[Any] = field(repr=False)
    prediction: int | None = None
    parent: int | None = None
    skipped: bool = False
    seconds: float | None = None
    annotator: int | None = None
    created: float = 0.0
    updated: float = 0.0
    ground_truth: bool = False
    import_id: int | None = None


@dataclass(frozen=True)
class PredictionRegions:
    """The regions of a prediction that Label Studio has, and its ``model_version``."""

    version: str
    result: Sequence[Any] = field(repr=False)


def read_annotation(found: Any) -> Annotation:
    """Make an `Annotation` of what the SDK has read, which does not check types."""
    return Annotation(
        id=int(found.id),
        task=int(found.task),
        project=int(found.project),
        result=found.result if isinstance(found.result, list) else (),
        prediction=_number(found.parent_prediction),
        parent=_number(found.parent_annotation),
        skipped=bool(found.was_cancelled),
        seconds=_lead_time(found.lead_time),
        annotator=_number(found.completed_by),
        created=epoch_seconds(found.created_at),
        updated=epoch_seconds(found.updated_at),
        ground_truth=getattr(found, "ground_truth", None) is True,
        import_id=_number(getattr(found, "import_id", None)),
    )


def _lead_time(value: Any) -> float | None:
    """Return a working time in seconds; whoever submits an annotation may claim any."""
    if type(value) not in (int, float):
        return None
    return value if LEAST_SECONDS <= value <= MOST_SECONDS else 0.0


def _number(value: Any) -> int | None:
    return value if type(value) is int else None


def epoch_seconds(at: Any) -> float:
    """Return a time of the SDK in seconds since the epoch; 0.0 where it is none."""
    return at.timestamp() if isinstance(at, datetime) else 0.0
