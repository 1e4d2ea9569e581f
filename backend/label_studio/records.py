"""What Label Studio's API answers; fields that no record names are skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

_T = TypeVar("_T")

#: Place of regions, "control|image|kind" -> label -> how many have it; "" for those without one.
RegionCounts = Mapping[str, Mapping[str, int]]

#: The shortest and the longest working time that is believed, in seconds: up to a week.
LEAST_SECONDS: Final = 0.1
MOST_SECONDS: Final = 7 * 86400.0


class Time(float):
    """A time of the API in seconds since the epoch, on Label Studio's clock; 0.0 for none."""


def decode_time(_kind: type, at: Any) -> Time:
    """Decode a `Time`: the hook of decoders of records.

    >>> decode_time(Time, "1970-01-01T00:01:00Z"), decode_time(Time, None)
    (60.0, 0.0)
    """
    return Time(0.0 if at is None else msgspec.convert(at, datetime).timestamp())


class Annotation(
    Struct,
    frozen=True,
    rename={
        "prediction": "parent_prediction",
        "parent": "parent_annotation",
        "skipped": "was_cancelled",
        "seconds": "lead_time",
        "annotator": "completed_by",
        "created": "created_at",
        "updated": "updated_at",
        "in_bulk": "bulk_created",
    },
):
    """An annotation as Label Studio has it now."""

    id: int
    task: int
    project: int
    result: Any = ()  # its regions, as they came: a sequence
    prediction: int | None = (
        None  # that it began with; None: it began with nothing, or that is deleted
    )
    parent: int | None = None  # the annotation that it is a copy of
    skipped: bool = False
    seconds: float | None = None  # of work in all; 0 where nobody can have worked that time
    annotator: int | None = None
    created: Time = Time(0)
    updated: Time = Time(0)
    ground_truth: bool = False
    in_bulk: bool = False

    @property
    def is_reviewed(self) -> bool:
        """Whether it was accepted on the review page, repaired or not, and not changed since.

        Label Studio's editor keeps no field of a region that it does not know: what is changed
        there loses the mark. An annotation without a region has it in a field of its own.
        """
        if not self.result:
            return self.in_bulk
        return all(isinstance(one, dict) and one.get("source") == "review" for one in self.result)

    @property
    def is_repaired(self) -> bool:
        """Whether one of its regions says that a review has repaired the prediction."""
        return any(isinstance(one, dict) and "repaired" in one for one in self.result)

    def __post_init__(self) -> None:
        if not isinstance(self.result, list):
            msgspec.structs.force_setattr(self, "result", ())
        if self.seconds is not None and not LEAST_SECONDS <= self.seconds <= MOST_SECONDS:
            msgspec.structs.force_setattr(self, "seconds", 0.0)


class ProjectRow(Struct):
    """A project, as the API answers it."""

    id: int
    label_config: str
    title: str | None = None
    model_version: str | None = None
    task_number: int | None = None
    maximum_annotations: int | None = None  # of different people, that finish a task
    overlap_cohort_percentage: float | None = None  # of the tasks: those that need these


class SummaryRow(Struct):
    """What a project says of its annotations."""

    created_labels: dict[str, dict[str, int]] | None = None  # control -> label -> regions
    created_annotations: dict[str, int] | None = None  # "control|image|kind" -> regions

    @classmethod
    def of(cls, regions: RegionCounts) -> SummaryRow:
        """Make the summary of regions that were counted in annotations."""
        labels: dict[str, dict[str, int]] = {}
        for place, counts in regions.items():
            of_control = labels.setdefault(place.partition("|")[0], {})
            for label, count in counts.items():
                if label:
                    of_control[label] = of_control.get(label, 0) + count
        return cls(labels, {place: sum(counts.values()) for place, counts in regions.items()})

    def joined(self, other: SummaryRow) -> SummaryRow:
        """Return the larger count of each label and control: neither may know all annotations."""
        labels, more = self.created_labels or {}, other.created_labels or {}
        return SummaryRow(
            {
                control: _larger(labels.get(control, {}), more.get(control, {}))
                for control in {**labels, **more}
            },
            _larger(self.created_annotations or {}, other.created_annotations or {}),
        )


def _larger(counts: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    return {key: max(counts.get(key, 0), others.get(key, 0)) for key in {**counts, **others}}


class TitleRow(Struct):
    """A project in a list of projects."""

    id: int
    title: str | None = None


class TitlePage(Struct):
    """A page of a list of projects."""

    results: list[TitleRow]
    count: int


class TaskRow(Struct, rename={"created": "created_at", "updated": "updated_at"}):
    """A task as the data manager lists it, without its annotations and predictions."""

    id: int
    data: dict[str, Any]
    total_predictions: int | None = None
    predictions_model_versions: str | None = None
    total_annotations: int | None = None
    cancelled_annotations: int | None = None
    annotations_ids: str | None = None
    created: Time = Time(0)
    updated: Time = Time(0)  # when it, or an annotation or a prediction of it, was changed last

    @property
    def annotations(self) -> int:
        """The number of its annotations, skipped ones included."""
        return (self.total_annotations or 0) + (self.cancelled_annotations or 0)

    @property
    def versions(self) -> list[str]:
        """The versions of its predictions, each once; none where the query does not name them."""
        named = (self.predictions_model_versions or "").split(",")
        return [each.strip() for each in named if each]  # spaces with PostgreSQL


class TaskPage(Struct, Generic[_T]):
    """A page of the data manager, with the numbers of all tasks and predictions that it lists."""

    tasks: list[_T]
    total: int
    total_predictions: int = 0


class IdRow(Struct, rename={"updated": "updated_at", "prediction": "parent_prediction"}):
    """Whatever has an id, such as an annotation without its regions."""

    id: int
    updated: Time = Time(0)
    prediction: int | None = None


class PredictionRow(Struct, rename={"created": "created_at"}):
    """A prediction without its regions."""

    id: int
    created: Time
    model_version: str | None = None
    score: float | None = None

    @property
    def version(self) -> str:
        """The ``model_version``; empty where it has none."""
        return self.model_version or ""


class TaskContents(Struct):
    """A task with its annotations and predictions, read without their regions."""

    id: int
    annotations: list[IdRow]
    predictions: list[PredictionRow]
    drafts: list[IdRow] = []
    project: int = 0


class PredictionRegions(PredictionRow):
    """A prediction with its regions."""

    result: Any = None

    @property
    def regions(self) -> Sequence[Any]:
        """The regions, as they came."""
        return self.result if isinstance(self.result, list) else ()


class PredictedRow(TaskRow):
    """A task as the data manager lists it, with its predictions."""

    predictions: list[PredictionRegions] = []


class WholeTask(Struct):
    """A task with its annotations, skips included, and its predictions."""

    id: int
    data: dict[str, Any] = {}
    annotations: list[Annotation] = []
    predictions: list[PredictionRegions] = []


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


class BackendRow(Struct, rename={"created": "created_at"}):
    """A connection of a project to an ML backend."""

    id: int
    url: str | None = None
    title: str | None = None
    state: str | None = None
    error_message: str | None = None
    is_interactive: bool | None = None
    created: Time = Time(0)


class ImportAnswer(Struct):
    """How many predictions an import has stored."""

    created: int


class ViewRow(Struct):
    """A view of the data manager."""

    id: int
    data: dict[str, Any] | None = None
