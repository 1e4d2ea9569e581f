"""Which annotations of a task count."""

from __future__ import annotations

import pytest

from backend.errors import BadRequest
from backend.label_studio.annotations import AnnotationChoice
from backend.label_studio.records import Annotation

ALL = [
    Annotation(1, 1, 1, (), annotator=4, updated=9.0),
    Annotation(2, 1, 1, (), annotator=5, updated=3.0, ground_truth=True),
    Annotation(3, 1, 1, (), annotator=5, updated=2.0, ground_truth=True),
    Annotation(4, 1, 1, (), annotator=6, updated=99.0, skipped=True, ground_truth=True),
    Annotation(5, 1, 1, (), updated=1.0),
    Annotation(6, 1, 1, (), updated=1.0),
]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("preferred", [2]),
        ("newest", [1]),
        ("ground-truth", [2]),
        ("5", [2]),
        ("6", []),
        ("majority", [1, 2, 5, 6]),
    ],
)
def test_rules(text: str, ids: list[int]) -> None:
    assert [each.id for each in AnnotationChoice.parse(text).choose(ALL)] == ids
    assert str(AnnotationChoice.parse(text)) == text


@pytest.mark.parametrize("text", ["", "annotator", "best", "-3", "1" * 30])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="majority"):
        AnnotationChoice.parse(text)
