"""Annotations, of which whoever submits them may have claimed anything."""

from __future__ import annotations

from typing import Any

import pytest

from backend.label_studio.records import MOST_SECONDS, Annotation, AnnotationRow, read_annotation


def _found(**changes: Any) -> AnnotationRow:
    fields: dict[str, Any] = {
        "id": 5,
        "task": 3,
        "project": 7,
        "result": [{"id": "a"}],
        "parent_prediction": 2,
        "parent_annotation": None,
        "was_cancelled": False,
        "lead_time": 1.5,
        "completed_by": 4,
        "created_at": "1970-01-01T00:01:00Z",
        "updated_at": "1970-01-01T01:02:00+01:00",
    }
    return AnnotationRow(**(fields | changes))


def test_an_annotation() -> None:
    assert read_annotation(_found()) == Annotation(
        id=5,
        task=3,
        project=7,
        result=[{"id": "a"}],
        prediction=2,
        seconds=1.5,
        annotator=4,
        created=60.0,
        updated=120.0,
    )


def test_fields_of_other_types_count_as_missing() -> None:
    found = _found(
        result=None,
        parent_prediction={"id": 2},
        was_cancelled=None,
        lead_time="1",
        completed_by={"id": 4},
        created_at=None,
        updated_at="today",
    )
    assert read_annotation(found) == Annotation(id=5, task=3, project=7, result=())


@pytest.mark.parametrize(
    "claimed", [float("inf"), float("nan"), -1.0, 1e-300, 10**400, MOST_SECONDS + 1]
)
def test_a_time_that_nobody_can_have_worked_is_none_that_counts(claimed: float) -> None:
    assert read_annotation(_found(lead_time=claimed)).seconds == 0, "and somebody was timed"
    assert read_annotation(_found(lead_time=MOST_SECONDS)).seconds == MOST_SECONDS
