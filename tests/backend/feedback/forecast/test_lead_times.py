"""Times of annotations as arrays."""

from __future__ import annotations

import numpy as np
import pytest

from backend.feedback.forecast.lead_times import LeadTimes, TimedAnnotation

DAY = 86400.0


def test_days_count_for_each_annotator_alone_in_the_order_of_submission() -> None:
    times = LeadTimes.of(
        [
            TimedAnnotation(4, 8, 40.0, 5 * DAY, True),
            TimedAnnotation(1, 9, 10.0, 1 * DAY, True),
            TimedAnnotation(2, 8, 20.0, 1 * DAY + 9, True),
            TimedAnnotation(3, 9, 30.0, 3 * DAY, False),
        ],
        {},
    )
    assert times.seconds.tolist() == [10, 20, 30, 40]
    assert times.annotator.tolist() == [0, 1, 0, 1]
    assert times.day.tolist() == [0, 0, 1, 1], "a day without work makes nobody faster"
    assert times.from_prediction.tolist() == [True, True, False, True]


def test_scores_count_in_standard_deviations_and_of_predictions_only() -> None:
    made = [TimedAnnotation(n, 1, 10.0, float(n), n != 3) for n in range(5)]
    times = LeadTimes.of(made, {0: 0.2, 1: 0.4, 3: 0.9})
    assert times.difficulty.tolist() == pytest.approx([-1, 1, 0, 0, 0])
    assert times.standardise(np.array([0.35, np.nan, 9.0])).tolist() == pytest.approx([0.5, 0, 4])
    wider = LeadTimes.of(made, {0: 0.2, 1: 0.4}, [0.1, 0.5])
    assert abs(wider.difficulty[0]) < 1, "the tasks that are left count"


def test_equal_scores_tell_nothing() -> None:
    times = LeadTimes.of(
        [TimedAnnotation(n, 1, 10.0, float(n), True) for n in (1, 2)], {1: 1, 2: 1}
    )
    assert times.standardise(np.array([0.1, 0.9])).tolist() == [0, 0]


def test_no_time_at_all() -> None:
    assert LeadTimes.of([], {}).seconds.shape == (0,)
