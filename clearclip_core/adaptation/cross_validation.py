"""Cross-validation over corrected images: how far each label may move from its words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
        width = evidence[0].batch.patches.shape[1]
        folds = min(_FOLDS, self._images)
        self._fold = self._clusters % folds
        self._statistics = [
            sum(
                (
                    each.statistics
                    for each, own in zip(evidence, self._fold, strict=True)
                    if own == f
                ),
                SufficientStatistics.empty(width),
            )
            for f in range(folds)
        ]

    def words_ious(self) -> Float64Array:
        """Return the (G,) IoUs of the text scores."""
        return compare(self._words, self._words, self._clusters).before

    def choose_precisions(self, learning: BoolArray) -> Float64Array:
        """Choose the precision of the prior of each label that learns.

        It is the largest of `PRIORS`, unless a smaller one for all labels clearly gains on
        held-out images of that label.

        Args:
            learning: (G,) bool, L of them true.

        Returns:
            (L,) float64.
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
        return chosen

    def compare(self, learning: BoolArray, precisions: Float64Array) -> Comparison:
        """Compare the adapted scores of held-out images with their text scores.

        Args:
            learning: (G,) bool, L of them true.
            precisions: (L,) of the prior.
        """
        (counts,) = self._held_out(learning, [precisions])
        return compare(self._words, counts, self._clusters)

    def predict(self, learning: BoolArray) -> list[npt.NDArray[np.intp]]:
        """Predict the (N,) groups of the patches of each example by a fit to the others.

        Args:
            learning: (G,) bool.
        """
        precisions = np.full(int(learning.sum()), _PREDICTING)
        predicted: list[npt.NDArray[np.intp]] = [np.zeros(0, np.intp)] * len(self._evidence)
        for fold in range(len(self._statistics)):
            (terms,) = self._modes(fold, learning, [precisions])
            for place in np.flatnonzero(self._fold == fold):
                each = self._evidence[place]
                predicted[place] = _logits(each, terms).argmax(axis=1)
        return predicted

    def fit(self, learning: BoolArray, precisions: Float64Array) -> Terms:
        """Fit to all images.

        Args:
            learning: (G,) bool, L of them true.
            precisions: (L,) of the prior.
        """
        width = self._evidence[0].batch.patches.shape[1]
        total = sum(self._statistics, SufficientStatistics.empty(width))
        _, terms = Posterior(self._evidence, total, learning).mode(precisions)
        return terms

    def _held_out(
        self, learning: BoolArray, precisions: Sequence[Float64Array]
    ) -> list[list[Float64Array]]:
        """Count the held-out patches of each example, for each of several priors."""
        counts: list[list[Float64Array]] = [[np.zeros(0)] * len(self._evidence) for _ in precisions]
        for fold in range(len(self._statistics)):
            for index, terms in enumerate(self._modes(fold, learning, precisions)):
                for place in np.flatnonzero(self._fold == fold):
                    each = self._evidence[place]
                    counts[index][place] = count_patches(each, _logits(each, terms))
        return counts

    def _modes(
        self, fold: int, learning: BoolArray, precisions: Sequence[Float64Array]
    ) -> Iterator[Terms]:
        """Fit to all images but those of a fold; each search starts at the last mode."""
        width = self._evidence[0].batch.patches.shape[1]
        rest = [e for e, own in zip(self._evidence, self._fold, strict=True) if own != fold]
        others = (each for f, each in enumerate(self._statistics) if f != fold)
        statistics = sum(others, SufficientStatistics.empty(width))
        posterior = Posterior(rest, statistics, learning)
        weights = None
        for each in precisions:
            weights, terms = posterior.mode(each, weights)
            yield terms


def _logits(evidence: Evidence, terms: Terms) -> Float32Array:
    directions, offsets = terms
    logits: Float32Array = evidence.batch.text + evidence.batch.patches @ directions.T + offsets
    return logits
