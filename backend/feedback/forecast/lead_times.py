"""The times that annotations took, with what they depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_DAY_S: Final = 86400.0


@dataclass(frozen=True)
class TimedAnnotation:
    """An annotation whose time was measured.

    Attributes:
        task: id of its task.
        annotator: id of the user who made it; None where that is not known.
        seconds: how long it took, Label Studio's ``lead_time``, more than 0.
        created: when it was submitted first, in seconds since the epoch.
        from_prediction: whether it began with a prediction of this backend; else from nothing.
    """

    task: int
    annotator: int | None
    seconds: float
    created: float
    from_prediction: bool


@dataclass(frozen=True, eq=False)
class LeadTimes:
    """The n times of a project as arrays, in the order in which annotations were submitted.

    Attributes:
        seconds: (n,) float64, more than 0.
        annotator: (n,) ints from 0, one number for each annotator.
        day: (n,) ints: on how many earlier days, in UTC, the annotator had submitted anything.
        from_prediction: (n,) bool.
        difficulty: (n,) float64, the score of the task's prediction in standard deviations from
            the mean of the project; 0 where there is none.
        mean_score: that mean.
        score_deviation: that standard deviation; 0 where all scores are equal, or none is known.
    """

    seconds: FloatArray
    annotator: IntArray
    day: IntArray
    from_prediction: npt.NDArray[np.bool_]
    difficulty: FloatArray
    mean_score: float
    score_deviation: float

    @classmethod
    def of(
        cls,
        times: Iterable[TimedAnnotation],
        scores: Mapping[int, float],
        scores_left: Sequence[float] = (),
    ) -> LeadTimes:
        """Arrange times.

        Args:
            times: in whatever order.
            scores: id of a task -> the score of its prediction.
            scores_left: the scores of the tasks that are not annotated.
        """
        ordered = sorted(times, key=lambda each: (each.created, each.task))
        numbers: dict[int | None, int] = {}
        days: dict[int | None, set[int]] = {}
        annotator, day = [], []
        for each in ordered:
            annotator.append(numbers.setdefault(each.annotator, len(numbers)))
            worked = days.setdefault(each.annotator, set())
            worked.add(int(each.created // _DAY_S))
            day.append(len(worked) - 1)
        known = np.array([scores.get(each.task, np.nan) for each in ordered], np.float64)
        from_prediction = np.array([each.from_prediction for each in ordered], np.bool_)
        known[~from_prediction] = np.nan
        given = np.array([*known[~np.isnan(known)], *scores_left], np.float64)
        mean, deviation = (given.mean(), given.std()) if len(given) else (0.0, 0.0)
        made = cls(
            np.array([each.seconds for each in ordered], np.float64),
            np.array(annotator, np.intp),
            np.array(day, np.intp),
            from_prediction,
            np.zeros(len(ordered)),
            float(mean),
            float(deviation),
        )
        made.difficulty[:] = made.standardise(known)
        return made

    def standardise(self, scores: FloatArray) -> FloatArray:
        """Return scores in standard deviations from the mean, within ±4; 0 for NaN."""
        if not self.score_deviation > 1e-9:
            return np.zeros(len(scores))
        return np.clip(np.nan_to_num((scores - self.mean_score) / self.score_deviation), -4, 4)
