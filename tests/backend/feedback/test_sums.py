"""Sums of what annotators changed."""

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff
from tests.backend.fakes.report import project_sums, rows_of


@pytest.fixture
def annotations(database: Database) -> AnnotationStore:
    return AnnotationStore(database, "me")


def read_of(annotation: int, **more: Any) -> ReadAnnotation:
    return ReadAnnotation(
        annotation, 7, task=100 + annotation, kind="compared", version="v", **more
    )


def test_a_mark_is_read_once_however_often_it_was_made(annotations: AnnotationStore) -> None:
    annotations.mark(7, [3, 1, 3])
    annotations.mark(7, [3])
    pending = annotations.lease(10)
    assert [(each.annotation, each.count) for each in pending] == [(3, 2), (1, 1)]
    change = LabelDiff("car", accepted=1, relabelled={"dog": 2}, true_px=9)
    told = read_of(3, annotator=4, seconds=1.5, created=10.0, updated=11.0, changes=(change,))
    annotations.complete(pending[0], told)
    annotations.complete(pending[1], read_of(1))
    assert annotations.lease(10) == []
    assert annotations.count_open() == 0
    assert rows_of(annotations) == [read_of(1), told]
    assert rows_of(annotations, 8) == []
    assert list(annotations.totals()) == [7]


#: Thursday, 2026-11-26.
DAY_0 = 1_795_651_200.0

LABELS = st.sampled_from(["car", "dog", 'a "name"', ""])

PX = st.integers(0, 1 << 28)


@st.composite
def diffs(draw: st.DrawFn) -> LabelDiff:
    predicted, true = draw(PX), draw(PX)
    return LabelDiff(
        draw(LABELS),
        accepted=draw(st.integers(0, 3)),
        deleted=draw(st.integers(0, 3)),
        relabelled=draw(st.dictionaries(LABELS, st.integers(1, 3), max_size=2)),
        predicted_px=predicted,
        true_px=true,
        shared_px=draw(st.integers(0, min(predicted, true))),
        image=draw(st.integers(0, 2)),
    )


@st.composite
def reads(draw: st.DrawFn) -> ReadAnnotation:
    kind: AnnotationOrigin = draw(st.sampled_from([*["compared"] * 8, *get_args(AnnotationOrigin)]))
    return ReadAnnotation(
        annotation=draw(st.integers(1, 2)),  # so that they are read again
        project=draw(st.sampled_from([7, 7, 7, 8])),
        task=draw(st.integers(0, 1)),  # 0: a row of 0.2.0
        kind=kind,
        version=draw(st.sampled_from(["v1", "v2", "v3"])) if kind == "compared" else "",
        created=DAY_0 + draw(st.integers(-40, 40)) * 43_200.0,
        changes=tuple(draw(st.lists(diffs(), max_size=3))) if kind == "compared" else (),
        reason="It has no size." if kind == "broken" else "",
    )


@settings(max_examples=40)
@given(steps=st.lists(st.tuples(reads(), st.booleans()), min_size=1, max_size=8))
def test_sums_equal_a_recount(database: Database, steps: list[tuple[ReadAnnotation, bool]]) -> None:
    """Annotations are read, read again in another state or project, and discarded."""
    annotations = AnnotationStore(database, "me")
    with database.write() as connection:
        connection.execute(text("DELETE FROM annotations"))
        connection.execute(text("DELETE FROM annotation_sums"))
    for read, is_gone in steps:
        annotations.mark(read.project, [read.annotation])
        (pending,) = annotations.lease(1)
        annotations.complete(pending, None if is_gone else read)
        for project in (7, 8):
            kept = rows_of(annotations, project)
            sums, expected = annotations.sums(project), project_sums(kept)
            assert sums == expected
            assert [*sums.versions] == [*expected.versions]
            assert (project in annotations.totals()) == bool(kept)
