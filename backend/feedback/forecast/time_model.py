"""A regression of the logarithm of lead times, which forgets what was left open over lunch.

    log seconds = mean + annotator + from nothing + practice exp(-day / 3) + slope difficulty

Each coefficient but the mean has a normal prior, so that what a handful of annotations do not show
is taken to be small (Bayesian linear regression, Gelman et al., "Bayesian Data Analysis", 14.8).
An annotation that took longer than nearly all others like it would was left open; it is dropped.
The mean of a skewed distribution is more than exp of the mean of its logarithms: the factor is the
mean of exp of the residuals (Duan, 1983, "Smearing estimate").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from backend.feedback.forecast.lead_times import FloatArray, LeadTimes

#: Days in which the slowness of a beginner falls to 37 %.
PRACTICE_DAYS: Final = 3.0

#: A time is taken as left open from so many standard deviations of the logarithm on.
_LEFT_OPEN: Final = 3.0
#: The standard deviation of the logarithm is taken to be at least that.
_LEAST_SPREAD: Final = 0.1
_ROUNDS: Final = 8

#: Weights that are drawn at once: 4 MB.
_WEIGHTS_AT_ONCE: Final = 1 << 19

#: Priors, mean and standard deviation: of the mean, of the difference without a prediction, of the
#: slowness of a beginner, of a standard deviation of difficulty, and of an annotator.
_PRIORS: Final = ((0.0, 30.0), (0.0, 3.0), (0.1, 0.15), (0.0, 0.5))
_ANNOTATOR_SPREAD: Final = 0.35

#: Columns of the design matrix before those of the annotators.
MEAN, FROM_NOTHING, PRACTICE, DIFFICULTY = range(4)
ANNOTATORS: Final = 4


@dataclass(frozen=True, eq=False)
class TimeModel:
    """A fitted regression.

    Attributes:
        coefficients: (p,) float64: `MEAN`, `FROM_NOTHING`, `PRACTICE`, `DIFFICULTY`, and one for
            each annotator.
        covariance: (p, p) of the coefficients.
        residuals: (n,) float64, of the logarithm of seconds.
        kept: (n,) bool: False for annotations that were left open.
    """

    coefficients: FloatArray
    covariance: FloatArray
    residuals: FloatArray
    kept: npt.NDArray[np.bool_]

    def draw(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Draw (count, p) coefficients; few annotations have heavy tails (Student's t)."""
        freedom = max(int(self.kept.sum()) - 3, 3)
        normal = rng.multivariate_normal(
            np.zeros(len(self.coefficients)), self.covariance, count, method="cholesky"
        )
        scale = np.sqrt(freedom / rng.chisquare(freedom, (count, 1)))
        return np.asarray(self.coefficients + scale * normal, np.float64)

    def draw_smearing(
        self, which: npt.NDArray[np.bool_], count: int, rng: np.random.Generator
    ) -> FloatArray:
        """Draw (count,) means of exp of residuals (Bayesian bootstrap, Rubin, 1981).

        Args:
            which: (n,) bool: the annotations whose residuals count, at least one that is kept.
            count: how many to draw.
            rng: the source of chance.
        """
        residuals = self.residuals[which & self.kept]
        factors = np.exp(residuals - residuals.mean())
        draws = np.empty(count)
        rows = max(1, _WEIGHTS_AT_ONCE // len(factors))
        for first in range(0, count, rows):
            weights = rng.exponential(size=(min(rows, count - first), len(factors)))
            draws[first : first + rows] = weights @ factors / weights.sum(axis=1)
        return draws


def fit(times: LeadTimes) -> TimeModel:
    """Fit the regression.

    Args:
        times: at least three.

    Raises:
        ValueError: there are fewer.
    """
    n = len(times.seconds)
    if n < 3:
        raise ValueError(f"Expected argument `times` to hold at least 3 times, but got {n}.")
    design, (prior_mean, precision) = _design(times), _prior(times)
    logs = np.log(times.seconds)
    kept: npt.NDArray[np.bool_] = np.ones(n, np.bool_)
    spread, coefficients = _spread(logs - np.median(logs)), prior_mean
    covariance = np.diag(1 / precision)
    for _ in range(_ROUNDS):
        used = design[kept]
        information = used.T @ used / spread**2 + np.diag(precision)
        covariance = np.asarray(np.linalg.inv(information), np.float64)
        right = used.T @ logs[kept] / spread**2 + precision * prior_mean
        coefficients = np.asarray(covariance @ right, np.float64)
        residuals = logs - design @ coefficients
        spread = _spread(residuals)
        before, kept = kept, residuals < _LEFT_OPEN * spread
        if (before == kept).all():
            break
    return TimeModel(coefficients, covariance, logs - design @ coefficients, kept)


def practice(day: FloatArray) -> FloatArray:
    """Return how much of the slowness of a beginner is left after so many days.

    >>> [round(float(each), 2) for each in practice(np.array([0.0, 3.0]))]
    [1.0, 0.37]
    """
    return np.asarray(np.exp(-day / PRACTICE_DAYS), np.float64)


def _design(times: LeadTimes) -> FloatArray:
    n = len(times.seconds)
    design = np.zeros((n, ANNOTATORS + int(times.annotator.max()) + 1))
    design[:, MEAN] = 1
    design[:, FROM_NOTHING] = ~times.from_prediction
    design[:, PRACTICE] = practice(times.day.astype(np.float64))
    design[:, DIFFICULTY] = times.difficulty
    design[np.arange(n), ANNOTATORS + times.annotator] = 1
    return design


def _prior(times: LeadTimes) -> tuple[FloatArray, FloatArray]:
    annotators = int(times.annotator.max()) + 1
    means, deviations = np.array([*_PRIORS, *[(0.0, _ANNOTATOR_SPREAD)] * annotators]).T
    return means, deviations**-2


def _spread(residuals: FloatArray) -> float:
    """Return the standard deviation of most residuals: 1.4826 times their median distance."""
    middle = np.median(residuals)
    return max(_LEAST_SPREAD, float(1.4826 * np.median(np.abs(residuals - middle))))
