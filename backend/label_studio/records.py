"""Annotations and predictions as Label Studio stores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

#: The shortest and the longest working time that is believed, in seconds: up to a week.
LEAST_SECONDS: Final = 0.1
MOST_SECONDS: Final = 7 * 86400.0


@dataclass(frozen=True)
class Annotation:
    """An annotation as Label Studio has it now. Times are in seconds since the epoch.

    Attributes:
        prediction: the prediction that it began with; None where there was none, or none is left.
        parent: the annotation that it is a copy of.
        skipped: whether the annotator has skipped the task.
        seconds: working time on it in all, Label Studio's ``lead_time``; None where not measured,
            0 where it is a time that nobody can have worked.
        annotator: id of its annotator.
        ground_truth: whether it is marked as the ground truth of its task.
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


class ProjectRow(Struct):
    """A project, as the API answers it."""

    id: int
    label_config: str
    title: str | None = None
    model_version: str | None = None
    task_number: int | None = None


class SummaryRow(Struct):
    """What a project says of its annotations: control -> label -> number of regions."""

    created_labels: dict[str, dict[str, int]] | None = None


class TitleRow(Struct):
    """A project in a list of projects."""

    id: int
    title: str | None = None


class TitlePage(Struct):
    """A page of a list of projects."""

    results: list[TitleRow]
    count: int


class TaskRow(Struct):
    """A task as the data manager lists it, without its annotations and predictions."""

    id: int
    data: dict[str, Any]
    total_predictions: int | None = None
    predictions_model_versions: str | None = None
    total_annotations: int | None = None
    cancelled_annotations: int | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def annotations(self) -> int:
        """The number of its annotations, skipped ones included."""
        return (self.total_annotations or 0) + (self.cancelled_annotations or 0)

    @property
    def created(self) -> float:
        """When it was created, in seconds since the epoch on Label Studio's clock."""
        return epoch_seconds(self.created_at)

    @property
    def updated(self) -> float:
        """When it, or an annotation or a prediction of it, was changed last, likewise."""
        return epoch_seconds(self.updated_at)


class TaskPage(Struct):
    """A page of the data manager."""

    tasks: list[TaskRow]
    total: int


class IdRow(Struct):
    """Whatever has an id, as an annotation of which nothing else is read."""

    id: int
    updated_at: Any = None


class TaskAnnotations(Struct):
    """A task, of which its annotations alone are read."""

    annotations: list[IdRow]


class PredictionRow(Struct):
    """A prediction without its regions."""

    id: int
    created_at: datetime
    model_version: str | None = None

    @property
    def version(self) -> str:
        """The ``model_version``; empty where it has none."""
        return self.model_version or ""

    @property
    def created(self) -> float:
        """Time at which it was stored, in seconds since the epoch."""
        return self.created_at.timestamp()


class PredictionRegions(PredictionRow):
    """A prediction with its regions."""

    result: Any = None

    @property
    def regions(self) -> Sequence[Any]:
        """The regions, as they came."""
        return self.result if isinstance(self.result, list) else ()


class AnnotationRow(Struct):
    """An annotation; what its annotator may have claimed has any type."""

    id: int
    task: int | None
    project: int | None
    result: Any = None
    parent_prediction: Any = None
    parent_annotation: Any = None
    was_cancelled: Any = None
    lead_time: Any = None
    completed_by: Any = None
    created_at: Any = None
    updated_at: Any = None
    ground_truth: Any = None


class UserRow(Struct):
    """A user of Label Studio."""

    id: int
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None

    @property
    def name(self) -> str:
        """The name; the e-mail address where there is none."""
        name = " ".join(each for each in (self.first_name, self.last_name) if each)
        return name or self.email or ""


class BackendRow(Struct):
    """A connection of a project to an ML backend, with what Label Studio says of it.

    Attributes:
        state: ``CO`` where Label Studio has reached it, ``DI`` where not, ``ER`` where it refuses.
    """

    id: int
    url: str | None = None
    state: str | None = None
    error_message: str | None = None
    is_interactive: bool | None = None
    created_at: datetime | None = None

    @property
    def created(self) -> float:
        """When it was connected, in seconds since the epoch; 0.0 where that is not known."""
        return epoch_seconds(self.created_at)


class ImportAnswer(Struct):
    """How many predictions an import has stored."""

    created: int


class ViewRow(Struct):
    """A view of the data manager."""

    id: int
    data: dict[str, Any] | None = None


def read_annotation(found: AnnotationRow) -> Annotation:
    """Make an `Annotation` of what the API answers."""
    return Annotation(
        id=found.id,
        task=found.task or 0,
        project=found.project or 0,
        result=found.result if isinstance(found.result, list) else (),
        prediction=_number(found.parent_prediction),
        parent=_number(found.parent_annotation),
        skipped=bool(found.was_cancelled),
        seconds=_lead_time(found.lead_time),
        annotator=_number(found.completed_by),
        created=epoch_seconds(found.created_at),
        updated=epoch_seconds(found.updated_at),
        ground_truth=found.ground_truth is True,
    )


def _lead_time(value: Any) -> float | None:
    """Return a working time in seconds; whoever submits an annotation may claim any."""
    if type(value) not in (int, float):
        return None
    return value if LEAST_SECONDS <= value <= MOST_SECONDS else 0.0


def _number(value: Any) -> int | None:
    return value if type(value) is int else None


def epoch_seconds(at: Any) -> float:
    """Return a time of the API, in JSON or decoded, in seconds since the epoch; 0.0 for none.

    >>> epoch_seconds("1970-01-01T00:01:00Z"), epoch_seconds(None), epoch_seconds("today")
    (60.0, 0.0, 0.0)
    """
    try:
        return msgspec.convert(at, datetime).timestamp()
    except msgspec.ValidationError:
        return 0.0
