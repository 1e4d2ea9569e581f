"""Cross-validation over corrected images: how far each label may move from its words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clearclip_core.adaptation.acceptance import Comparison, compare, count_patches
from clearclip_core.adaptation.contradictions import BoolArray
from clearclip_core.adaptation.evidence import Evidence
from clearclip_core.adaptation.examples import Float32Array
from clearclip_core.adaptation.posterior import Posterior, Terms
from clearclip_core.adaptation.sufficient_statistics import Float64Array, SufficientStatistics

#: Precisions of the prior, in images, the largest first. With few images only the larger ones are
#: tried: those whose product with the number of images is at least `_LEAST_PRIOR`.
PRIORS = (3.0, 1.0, 0.3, 0.1)
_LEAST_PRIOR = 1.5

#: A label's words weigh less than the most only where that gains so much IoU, and where the lower
#: bound loses nothing.
_CLEAR_GAIN = 0.15

#: Precision of the prior where one example is asked what the others teach.
_PREDICTING = 1.0

_FOLDS = 5


class CrossValidation:
    """Fits to folds of the images, and the counts of their held-out patches.

    Near-duplicates are held out together.

    Args:
        evidence: what the examples say, at least one.
    """

    def __init__(self, evidence: Sequence[Evidence]) -> None:
        self._evidence = evidence
        self._clusters = np.array([each.cluster for each in evidence], np.intp)
        self._images = len(np.unique(self._clusters))
        self._words = [count_patches(each, each.batch.text) for each in evidence]
        self._fold = self._clusters % min(_FOLDS, self._images)

    def words_ious(self) -> Float64Array:
        """Return the (G,) IoUs of the text scores."""
        return compare(self._words, self._words, self._clusters).before

    def compare(self, learning: BoolArray) -> tuple[Float64Array, Comparison]:
        """Choose how far labels may move, and compare their scores of held-out images with text's.

        The precision of a label's prior is the largest of `PRIORS`, unless a smaller one for all
        labels clearly gains on held-out images of that label.

        Args:
            learning: (G,) bool, L of them true.

        Returns:
            (L,) float64 precisions, and the comparison.
        """
        rows = np.flatnonzero(learning)
        tried = [prior for prior in PRIORS if prior * self._images >= _LEAST_PRIOR]
        counts = self._held_out(learning, [np.full(len(rows), prior) for prior in tried])
        chosen, best = np.full(len(rows), tried[0]), np.zeros(len(rows))
        for prior, each in zip(tried[1:], counts[1:], strict=True):
            comparison = compare(counts[0], each, self._clusters)
            gains = (comparison.after - comparison.before)[rows]
            better = (gains > np.maximum(best, _CLEAR_GAIN)) & (comparison.lows[rows] >= 0)
            chosen[better], best[better] = prior, gains[better]
        adapted = counts[0]
        if (chosen != tried[0]).any():
            (adapted,) = self._held_out(learning, [chosen])
        return chosen, compare(self._words, adapted, self._clusters)

    def predict(self, learning: BoolArray) -> list[npt.NDArray[np.intp]]:
        """Predict the (N,) groups of the patches of each example by a fit to the others.

        Args:
            learning: (G,) bool.
        """
        precisions = np.full(int(learning.sum()), _PREDICTING)
        predicted: list[npt.NDArray[np.intp]] = [np.zeros(0, np.intp)] * len(self._evidence)
        for place, (terms,) in self._fits(learning, [precisions]):
            predicted[place] = _logits(self._evidence[place], terms).argmax(axis=1)
        return predicted

    def fit(self, learning: BoolArray, precisions: Float64Array) -> Terms:
        """Fit to all images.

        Args:
            learning: (G,) bool, L of them true.
            precisions: (L,) of the prior.
        """
        _, terms = Posterior(self._evidence, _sum(self._statistics), learning).mode(precisions)
        return terms

    @cached_property
    def _statistics(self) -> list[SufficientStatistics]:
        """The sufficient statistics of each fold."""
        pairs = list(zip(self._evidence, self._fold, strict=True))
        return [
            _sum([each.statistics for each, own in pairs if own == fold])
            for fold in range(self._fold.max() + 1)
        ]

    def _held_out(
        self, learning: BoolArray, precisions: Sequence[Float64Array]
    ) -> list[list[Float64Array]]:
        """Count the held-out patches of each example, for each of several priors."""
        counts: list[list[Float64Array]] = [[np.zeros(0)] * len(self._evidence) for _ in precisions]
        for place, fits in self._fits(learning, precisions):
            each = self._evidence[place]
            for own, terms in zip(counts, fits, strict=True):
                own[place] = count_patches(each, _logits(each, terms))
        return counts

    def _fits(
        self, learning: BoolArray, precisions: Sequence[Float64Array]
    ) -> Iterator[tuple[int, list[Terms]]]:
        """Yield the index of each example, and a fit to the other folds for each prior."""
        for fold, own in enumerate(self._statistics):
            rest = [e for e, held in zip(self._evidence, self._fold, strict=True) if held != fold]
            others = [each for each in self._statistics if each is not own]
            posterior = Posterior(rest, _sum(others), learning)
            fits, weights = [], None
            for each in precisions:  # each search starts at the last mode
                weights, terms = posterior.mode(each, weights)
                fits.append(terms)
            for place in np.flatnonzero(self._fold == fold).tolist():
                yield place, fits


def _sum(statistics: Sequence[SufficientStatistics]) -> SufficientStatistics:
    """Add up the statistics of at least one image."""
    return sum(statistics[1:], statistics[0])


def _logits(evidence: Evidence, terms: Terms) -> Float32Array:
    directions, offsets = terms
    logits: Float32Array = evidence.batch.text + evidence.batch.patches @ directions.T + offsets
    return logits
