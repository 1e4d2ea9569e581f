"""A task with its annotations and predictions, as an API or an exported file has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from backend.errors import DatasetError
from backend.label_studio.json_fields import read_number, read_text
from backend.label_studio.records import Annotation
from backend.label_studio.requests import Task

_LARGEST_ID: Final = (1 << 63) - 1


@dataclass(frozen=True)
class TaskPrediction:
    """A prediction of a task with its regions.

    Attributes:
        id: its own; 0 where an exported file does not say.
        version: its ``model_version``.
        result: its regions, as they came; none where nobody has asked for them.
    """

    id: int
    version: str
    result: Sequence[Any] = field(default=(), repr=False)


@dataclass(frozen=True)
class TaskRecord:
    """A task with what people and models have said about it.

    Attributes:
        task: the task.
        annotations: all of them, skipped ones included.
        predictions: the oldest first; none where nobody has asked for them.
    """

    task: Task
    annotations: tuple[Annotation, ...] = ()
    predictions: tuple[TaskPrediction, ...] = ()

    def version_of(self, prediction: int | None) -> str:
        """Return the ``model_version`` of one of its predictions; empty where it is gone."""
        return next((each.version for each in self.predictions if each.id == prediction), "")


@dataclass(frozen=True)
class TaskReference:
    """A task that is there, and how to read it.

    Attributes:
        id: its id.
        stamp: a text that differs whenever the task, an annotation or a prediction has changed.
        read: reads it; None where it is gone by then.
    """

    id: int
    stamp: str
    read: Callable[[], TaskRecord | None] = field(repr=False, compare=False)


def read_exported_task(raw: Any, project: int | None = None) -> TaskRecord:
    """Read a task of a file that Label Studio has exported as JSON.

    Raises:
        DatasetError: it is no object with an id and data, or its annotations are no list.
    """
    if not isinstance(raw, dict) or _id(raw.get("id")) is None:
        raise DatasetError('Expected each exported task to have an "id", but one has none.')
    id_, data = raw["id"], raw.get("data")
    annotations, predictions = raw.get("annotations", []), raw.get("predictions") or []
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise DatasetError(
            f'Expected the exported task {id_} to have "data" and "annotations" as in Label '
            "Studio's export JSON, but it has not: JSON-MIN has no masks of use."
        )
    task = Task(id_, project, data)
    given = predictions if isinstance(predictions, list) else []
    found = [_prediction(each) for each in given if isinstance(each, dict)]
    began = [each.get("prediction") for each in annotations if isinstance(each, dict)]
    found += [_prediction(each) for each in began if isinstance(each, dict) and each.get("id")]
    known = {each.id: each for each in found if each.id}
    unknown = [each for each in found if not each.id]
    return TaskRecord(
        task,
        tuple(_annotation(each, id_) for each in annotations if isinstance(each, dict)),
        (*unknown, *sorted(known.values(), key=lambda each: each.id)),
    )


def _prediction(raw: Mapping[str, Any]) -> TaskPrediction:
    result = raw.get("result")
    return TaskPrediction(
        id=_id(raw.get("id")) or 0,
        version=read_text(raw, "model_version"),
        result=result if isinstance(result, list) else (),
    )


def _annotation(raw: Mapping[str, Any], task: int) -> Annotation:
    person = raw.get("completed_by")
    person = person.get("id") if isinstance(person, dict) else person
    began = raw.get("prediction")
    prediction = raw.get("parent_prediction")
    if prediction is None and isinstance(began, dict):
        prediction = began.get("id")
    result = raw.get("result")
    return Annotation(
        id=_id(raw.get("id")) or 0,
        task=task,
        project=_id(raw.get("project")) or 0,
        result=result if isinstance(result, list) else (),
        prediction=_id(prediction),
        skipped=raw.get("was_cancelled") is True,
        seconds=read_number(raw.get("lead_time")),
        annotator=_id(person),
        created=_seconds(raw.get("created_at")),
        updated=_seconds(raw.get("updated_at")),
        ground_truth=raw.get("ground_truth") is True,
    )


def _id(value: Any) -> int | None:
    """Return an id that a database can hold; None for another value."""
    return value if type(value) is int and 0 <= value <= _LARGEST_ID else None


def _seconds(text: Any) -> float:
    """Return a time in seconds since the epoch; 0.0 where it is none."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return 0.0
