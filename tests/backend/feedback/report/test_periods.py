"""Estimates by day and by week, against a bootstrap and SciPy's intervals."""

import numpy as np
import pytest
from scipy import stats

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.feedback.report.periods import (
    mean_interval,
    periods_of,
    ratio_interval,
    read_periods,
)
from backend.settings import Settings

DAY_S = 86_400.0
MONDAY = 1_000_080_000.0  # 2001-09-10, 00:00 in UTC


def read(number: int, day: float, kind: AnnotationOrigin = "compared") -> ReadAnnotation:
    """An annotation with 100 px: 25 of them had to be painted, and 5 more were erased."""
    change = LabelDiff("car", corrected=1, predicted_px=80, true_px=100, shared_px=75)
    return ReadAnnotation(
        annotation=number,
        project=7,
        task=number,
        kind=kind,
        version="v",
        seconds=60.0,
        created=MONDAY + day * DAY_S,
        changes=(change,) if kind == "compared" else (),
    )


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.random.default_rng(0).gamma(2.0, 30.0, 12)
    found = mean_interval(values.tolist())
    low, high = stats.t.interval(0.9, 11, values.mean(), stats.sem(values))
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_interval_of_a_ratio_is_near_that_of_a_bootstrap() -> None:
    random = np.random.default_rng(1)
    wholes = random.uniform(50, 150, 60)
    parts = wholes * random.uniform(0.1, 0.7, 60)
    draws = random.integers(0, 60, (4000, 60))
    low, high = np.quantile(parts[draws].sum(1) / wholes[draws].sum(1), (0.05, 0.95))
    found = ratio_interval(parts.tolist(), wholes.tolist())
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_days_make_weeks_from_monday_on() -> None:
    reads = [read(1, -0.5), *(read(number, number / 2) for number in range(2, 9))]
    (before, week) = periods_of(reads, "week")
    assert (before.name, before.annotations) == ("2001-09-03", 1)
    assert (week.name, week.annotations, week.days) == ("2001-09-10", 7, 4)


def test_saved_paint_counts_what_was_painted_and_what_was_erased() -> None:
    (day,) = periods_of([read(number, 0) for number in range(6)], "day")
    assert day.saved_paint is not None
    assert day.saved_paint.mean == pytest.approx(0.70)


def test_four_annotations_are_too_few_to_tell() -> None:
    (day,) = periods_of([read(number, 0) for number in range(4)], "day")
    assert (day.annotations, day.saved_paint, day.seconds) == (4, None, None)


def test_pictures_drawn_from_nothing_count_for_the_pace_alone() -> None:
    drawn = [read(10 + number, 0, "scratch") for number in range(6)]
    (day,) = periods_of([read(number, 0) for number in range(4)] + drawn, "day")
    assert (day.annotations, day.saved_paint, day.seconds) == (10, None, None)


def test_the_store_gives_the_oldest_period_first_and_skipped_ones_not() -> None:
    annotations = AnnotationStore(Database.from_settings(Settings()), "who reads")
    for each in (read(1, 2), read(2, 1), read(3, 3, "skipped")):
        annotations.mark(7, [each.annotation])
        annotations.complete(annotations.lease(1)[0], each)
    found = read_periods(annotations, 7, "day")
    assert [each.name for each in found] == ["2001-09-11", "2001-09-12"]
