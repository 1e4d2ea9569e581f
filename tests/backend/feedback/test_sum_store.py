"""Sums in the database equal those of a full recount, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from typing import get_args

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff
from tests.backend.fakes.report import project_sums, rows_of

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
        task=1,
        kind=kind,
        version=draw(st.sampled_from(["v1", "v2", "v3"])) if kind == "compared" else "",
        created=DAY_0 + draw(st.integers(-40, 40)) * 43_200.0,
        changes=tuple(draw(st.lists(diffs(), max_size=3))) if kind == "compared" else (),
        reason="It has no size." if kind == "broken" else "",
    )


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    steps=st.lists(st.tuples(reads(), st.booleans()), min_size=1, max_size=8),
)
def test_stored_sums_equal_a_full_recount(
    database: Database,
    steps: list[tuple[ReadAnnotation, bool]],
) -> None:
    """Annotations are read, read again in another state or project, and discarded."""
    annotations = AnnotationStore(database, "me")
    with database.write() as connection:
        connection.execute(text("DELETE FROM annotations"))
        connection.execute(text("DELETE FROM annotation_sums"))
    for read, is_gone in steps:
        annotations.mark(read.project, [read.annotation])
        (pending,) = annotations.lease(1)
        if is_gone:
            annotations.complete(pending, None)
        else:
            annotations.complete(pending, read)
        for project in (7, 8):
            kept = rows_of(annotations, project)
            sums, expected = annotations.sums(project), project_sums(kept)
            assert sums == expected
            assert [*sums.versions] == [*expected.versions]
            assert (project in annotations.totals()) == bool(kept)
