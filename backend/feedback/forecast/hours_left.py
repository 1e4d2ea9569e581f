"""Foretell the hours of annotation that a project still takes, with and without predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from backend.feedback.forecast.lead_times import FloatArray, LeadTimes, TimedAnnotation
from backend.feedback.forecast.time_model import (
    ANNOTATORS,
    DIFFICULTY,
    FROM_NOTHING,
    MEAN,
    PRACTICE,
    TimeModel,
    fit,
    practice,
)

#: Annotations that a forecast needs: of those with a prediction, and of those from nothing.
LEAST_WITH: Final = 20
LEAST_WITHOUT: Final = 10

#: Part of forecasts whose interval is to hold what comes.
CONFIDENCE: Final = 0.9

_DRAWS: Final = 2000
#: Moments of the work ahead at which practice is looked at, and bins of the scores of tasks.
_MOMENTS, _BINS = 50, 60

Json = dict[str, Any]


@dataclass(frozen=True)
class Hours:
    """Hours with an interval that is to hold the truth in `CONFIDENCE` of all forecasts.

    Attributes:
        expected: the median.
        low: the lower end.
        high: the upper end.
    """

    expected: float
    low: float
    high: float

    def to_json(self) -> Json:
        """Return the JSON that databases keep and pages answer."""
        return {"hours": self.expected, "low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, value: Json | None) -> Hours | None:
        """Read what `to_json` has written; None for None."""
        return None if value is None else cls(value["hours"], value["low"], value["high"])


@dataclass(frozen=True)
class HoursLeft:
    """A forecast for a project.

    Attributes:
        made: when, in seconds since the epoch.
        tasks_left: tasks without an annotation.
        n_with: measured annotations that began with a prediction.
        n_without: measured annotations that began from nothing.
        left_open: of both, those that took so long that they were left open; they do not count.
        with_prelabels: the hours if all tasks that are left have predictions; None: not known.
        without_prelabels: the hours if none has; None: not known.
    """

    made: float
    tasks_left: int
    n_with: int = 0
    n_without: int = 0
    left_open: int = 0
    with_prelabels: Hours | None = None
    without_prelabels: Hours | None = None

    def to_json(self) -> Json:
        """Return the JSON that databases keep and pages answer."""
        hours = (self.with_prelabels, self.without_prelabels)
        with_, without = (None if each is None else each.to_json() for each in hours)
        return {
            "made": self.made,
            "tasks_left": self.tasks_left,
            "annotations_with": self.n_with,
            "annotations_without": self.n_without,
            "left_open": self.left_open,
            "with_prelabels": with_,
            "without_prelabels": without,
        }

    @classmethod
    def from_json(cls, value: Json) -> HoursLeft:
        """Read what `to_json` has written."""
        return cls(
            value["made"],
            value["tasks_left"],
            value["annotations_with"],
            value["annotations_without"],
            value["left_open"],
            Hours.from_json(value["with_prelabels"]),
            Hours.from_json(value["without_prelabels"]),
        )

    @property
    def missing(self) -> list[str]:
        """Why hours are not known, and what to do, in sentences."""
        found = []
        if self.with_prelabels is None:
            found.append(
                f"Hours with prelabels are known from {LEAST_WITH} annotations on that began with "
                f"a prediction and whose time was measured; so far there are {self.n_with}."
            )
        if self.without_prelabels is None:
            found.append(
                "Hours without prelabels are not known: they need the times of "
                f"{LEAST_WITHOUT} annotations that began from nothing; so far there are "
                f"{self.n_without}. Annotate some tasks that have no prediction, chosen by chance."
            )
        return found


def foretell(
    times: Iterable[TimedAnnotation],
    scores: Mapping[int, float],
    tasks_left: int,
    scores_left: Sequence[float],
    made: float,
) -> HoursLeft:
    """Make the forecast for a project.

    It is taken that the annotators of the last half go on with the shares that they had, and that
    each task is annotated once. The same input gives the same numbers.

    Args:
        times: the measured annotations.
        scores: id of an annotated task -> the score of its prediction.
        tasks_left: tasks without an annotation.
        scores_left: the scores of those of them that have a prediction.
        made: the time now, in seconds since the epoch.
    """
    known = LeadTimes.of(times, scores, scores_left)
    n_with = int(known.from_prediction.sum())
    n_without = len(known.seconds) - n_with
    plain = HoursLeft(made, tasks_left, n_with, n_without)
    if n_with < LEAST_WITH and n_without < LEAST_WITHOUT:
        return plain
    model = fit(known)
    ahead = _Ahead(known, model, tasks_left, np.asarray(scores_left, np.float64))
    return HoursLeft(
        made,
        tasks_left,
        n_with,
        n_without,
        int((~model.kept).sum()),
        ahead.hours(True) if n_with >= LEAST_WITH else None,
        ahead.hours(False) if n_without >= LEAST_WITHOUT else None,
    )


@dataclass(frozen=True, eq=False)
class _Ahead:
    """The work that is left, by a model of what was done."""

    times: LeadTimes
    model: TimeModel
    tasks: int
    scores: FloatArray

    def hours(self, from_prediction: bool) -> Hours:
        """Sum up the work that is left.

        Args:
            from_prediction: whether all tasks have a prediction; else none has.
        """
        if not self.tasks:
            return Hours(0.0, 0.0, 0.0)
        rng = np.random.default_rng(0)
        like = self.times.from_prediction == from_prediction
        drawn = self.model.draw(_DRAWS, rng)  # (draws, p)
        seconds = np.exp(drawn[:, MEAN]) * self._annotators(drawn, rng)
        seconds *= self._difficulty(drawn) if from_prediction else np.exp(drawn[:, FROM_NOTHING])
        seconds *= self.model.draw_smearing(like, _DRAWS, rng)
        residuals = np.exp(self.model.residuals[like & self.model.kept])
        deviation = residuals.std() / residuals.mean() / np.sqrt(self.tasks)  # of the sum of tasks
        totals = self.tasks * seconds * (1 + deviation * rng.standard_normal(_DRAWS)) / 3600
        tail = (1 - CONFIDENCE) / 2
        low, expected, high = np.quantile(totals, [tail, 0.5, 1 - tail])
        return Hours(float(expected), float(max(low, 0.0)), float(high))

    def _annotators(self, drawn: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return (draws,) factors of those who go on, with the practice that they gain."""
        times = self.times
        recent = times.annotator[len(times.annotator) // 2 :]
        counts = np.bincount(recent, minlength=int(times.annotator.max()) + 1)
        active = np.flatnonzero(counts)
        shares = rng.dirichlet(counts[active], len(drawn))  # (draws, active)
        factors = np.empty_like(shares)
        for column, annotator in enumerate(active):
            own = times.annotator == annotator
            day = int(times.day[own].max())
            days = self.tasks * counts[annotator] / len(recent) * (day + 1) / own.sum()
            left = practice(day + days * (np.arange(_MOMENTS) + 0.5) / _MOMENTS)
            slowness = np.exp(drawn[:, PRACTICE, None] * left).mean(axis=1)
            factors[:, column] = np.exp(drawn[:, ANNOTATORS + annotator]) * slowness
        return np.asarray((shares * factors).sum(axis=1), np.float64)

    def _difficulty(self, drawn: FloatArray) -> FloatArray:
        """Return (draws,) mean factors of the difficulty of the tasks that are left."""
        if not len(self.scores):
            return np.ones(len(drawn))
        counts, edges = np.histogram(self.times.standardise(self.scores), _BINS, (-4.0, 4.0))
        factors = np.exp(drawn[:, DIFFICULTY, None] * (edges[1:] + edges[:-1]) / 2)
        return np.asarray(factors @ counts / counts.sum(), np.float64)


def hours(value: float) -> str:
    """Write hours for people.

    >>> hours(0.26), hours(3.14), hours(15.6), hours(1234.4)
    ('16 min', '3.1 h', '16 h', '1234 h')
    """
    if value < 1:
        return f"{60 * value:.0f} min"
    return f"{value:.1f} h" if value < 10 else f"{value:.0f} h"
