"""The regression of times, against numbers that were put in."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from backend.feedback.forecast.lead_times import LeadTimes, TimedAnnotation
from backend.feedback.forecast.time_model import (
    ANNOTATORS,
    DIFFICULTY,
    FROM_NOTHING,
    PRACTICE,
    TimeModel,
    fit,
)

DAY = 86400.0


def annotations(
    count: int = 2000, open_every: int = 0
) -> tuple[list[TimedAnnotation], dict[int, float]]:
    """Annotator 1 takes twice as long as 0; from nothing takes three times as long."""
    rng = np.random.default_rng(5)
    scores = dict(enumerate(rng.random(count).tolist()))
    deviation = float(np.std(list(scores.values())))
    made = []
    for task in range(count):
        annotator, from_nothing, day = task % 2, task % 5 == 0, task * 10 // count
        seconds = 60 * 2**annotator * 3**from_nothing * float(rng.lognormal(0, 0.3))
        seconds *= 1.5 ** np.exp(-day / 3)
        if not from_nothing:
            seconds *= 1.2 ** ((scores[task] - 0.5) / deviation)
        if open_every and task % open_every == 0:
            seconds += 7200
        made.append(
            TimedAnnotation(task, annotator, float(seconds), DAY * day + task, not from_nothing)
        )
    return made, scores


def test_what_was_put_in_is_found() -> None:
    model = fit(LeadTimes.of(*annotations()))
    found = model.coefficients
    assert np.exp(found[ANNOTATORS + 1] - found[ANNOTATORS]) == pytest.approx(2, rel=0.05)
    assert np.exp(found[FROM_NOTHING]) == pytest.approx(3, rel=0.05)
    assert np.exp(found[PRACTICE]) == pytest.approx(1.5, rel=0.1)
    assert np.exp(found[DIFFICULTY]) == pytest.approx(1.2, rel=0.02)
    smearing = model.draw_smearing(np.ones(2000, bool), 500, np.random.default_rng(0))
    assert smearing.mean() == pytest.approx(np.exp(0.3**2 / 2), rel=0.02)


def test_what_was_left_open_over_lunch_is_dropped() -> None:
    plain, spoilt = (fit(LeadTimes.of(*annotations(open_every=each))) for each in (0, 20))
    assert (~spoilt.kept)[::20].mean() > 0.95
    assert (~spoilt.kept).mean() < 0.06
    assert np.abs(spoilt.coefficients - plain.coefficients)[:ANNOTATORS].max() < 0.05


def test_draws_spread_as_little_data_asks_for() -> None:
    rng = np.random.default_rng(0)
    few, many = (fit(LeadTimes.of(*annotations(count))).draw(4000, rng) for count in (30, 2000))
    assert few[:, FROM_NOTHING].std() > 4 * many[:, FROM_NOTHING].std()


def test_means_of_many_annotations_are_drawn_in_little_memory() -> None:
    count = 100_000
    residuals = np.linspace(-1.0, 1.0, count)
    every = np.ones(count, np.bool_)
    model = TimeModel(np.zeros(ANNOTATORS), np.eye(ANNOTATORS), residuals, every)
    tracemalloc.start()
    try:
        drawn = model.draw_smearing(every, 25, np.random.default_rng(0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20, "25 draws at once have 20 MB of weights"
    assert drawn.shape == (25,)
    assert drawn == pytest.approx(np.sinh(1.0), rel=0.02)


def test_too_few_times_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 times, but got 2"):
        fit(LeadTimes.of(annotations(2)[0], {}))
