"""How many independent tasks those are worth that were annotated one after another.

Tasks that follow each other may fare alike: the frames of one drive, or tasks in the order of their
scores. A share of such tasks varies more from project to project than one of as many independent
tasks. By how much, the design effect says (Kish, "Survey Sampling", 1965, section 5.4): one and
twice the sum of the correlations of all pairs for each task. With the tasks divided by it, the
exact binomial test holds nearly (Korn and Graubard, "Confidence intervals for proportions with
small expected number of positive counts estimated from survey data", Survey Methodology 24, 1998).

A correlation is estimated for each octave of distances in the order of annotation, and counts where
it is larger than chance makes it, up to the first that is not (Geyer, "Practical Markov chain Monte
Carlo", Statistical Science 7, 1992, section 3.3, ends a sequence of correlations that way). In
random order neighbours have nothing in common however much the frames of a drive do, and each task
counts in full: such a sample speaks for all of its project.

Only what shows can be estimated. Where the frames of a drive have no scores in common, the changes
alone tell of the order, and they do so only once there are enough of them: a project that has begun
with drives without a change looks like independent tasks without one. Hence nothing here replaces
random order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.signal import correlate

FloatArray = npt.NDArray[np.float64]

#: A correlation counts from so many standard errors of independent tasks on.
_SURE: Final = 3.0


@dataclass(frozen=True)
class SerialDependence:
    """Correlations of tasks by their distance in the order of annotation.

    Attributes:
        correlations: in [0, 1], for the distances 1, 2 to 3, 4 to 7 and so on; 0 beyond.
    """

    correlations: tuple[float, ...] = ()

    @classmethod
    def of(cls, rows: FloatArray) -> SerialDependence:
        """Estimate the correlations.

        Args:
            rows: (n, d) d figures of each task, in one unit, in the order of annotation. Columns
                count by their variance.

        >>> drives = np.repeat([0.0, 1.0, 1.0, 0.0, 1.0, 0.0], 16)[:, None]
        >>> SerialDependence.of(drives).correlations[0] > 0.8
        True
        """
        sums = _lag_sums(rows - rows.mean(axis=0)) if rows.size else np.zeros(1)
        if sums[0] <= 1e-9 * len(rows):
            return cls()
        found: list[float] = []
        for lags in _octaves(len(rows) // 2):
            pairs = int((len(rows) - np.arange(lags.start, lags.stop)).sum())
            correlation = float(sums[lags].sum() / pairs / (sums[0] / len(rows)))
            is_sure = correlation > _SURE / pairs**0.5
            if any(found) and not is_sure:
                break
            found.append(min(correlation, 1.0) if is_sure else 0.0)
        return cls(tuple(found))

    def joined(self, other: SerialDependence) -> SerialDependence:
        """Return the larger correlation of two at each distance."""
        pairs = zip_longest(self.correlations, other.correlations, fillvalue=0.0)
        return SerialDependence(tuple(max(pair) for pair in pairs))

    def effective(self, places: Sequence[int]) -> float:
        """Return how many independent tasks some of the tasks are worth, their number at most.

        Args:
            places: of these tasks in the order of annotation, from 0.

        >>> SerialDependence().effective([0, 3, 5])
        3.0
        >>> round(SerialDependence((1.0, 1.0)).effective([0, 1, 2]), 9)
        1.0
        """
        count = len(places)
        if count < 2 or not any(self.correlations):
            return float(count)
        chosen = np.zeros((max(places) + 1, 1))
        chosen[list(places)] = 1
        pairs = _lag_sums(chosen)
        octaves = zip(self.correlations, _octaves(len(pairs) - 1), strict=False)
        alike = sum(correlation * float(pairs[lags].sum()) for correlation, lags in octaves)
        return count**2 / (count + 2 * alike)


def _octaves(longest: int) -> Iterator[slice]:
    """Yield the lags of each octave, up to the longest."""
    first = 1
    while first <= longest:
        yield slice(first, min(2 * first, longest + 1))
        first *= 2


def _lag_sums(columns: FloatArray) -> FloatArray:
    """Sum up the products of all pairs of rows by their distance: (n,), the first of distance 0."""
    each = [correlate(column, column)[len(column) - 1 :] for column in columns.T]
    return np.asarray(np.sum(each, axis=0), np.float64)
