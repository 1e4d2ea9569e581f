"""Cross-validation over corrected images: how far each label may move from its words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clearclip_core.adaptation.acceptance import (
    Comparison,
    at_prevalence,
    compare,
    count_patches,
)
from clearclip_core.adaptation.contradictions import BoolArray
from clearclip_core.adaptation.evidence import Evidence, count_images
from clearclip_core.adaptation.examples import Float32Array
from clearclip_core.adaptation.posterior import Posterior, Prior, Terms
from clearclip_core.adaptation.sufficient_statistics import Float64Array, SufficientStatistics

#: Precisions of the prior, in images, the largest first, for up to `_FEW_IMAGES` painted images.
#: The largest grows with their number to the power of `_GROWTH`. With a fixed one the words hardly
#: count beside many images, and a label is lost in places that few of these show, too few for
#: held-out images to tell.
PRIORS = (3.0, 1.0, 0.3)
_FEW_IMAGES = 10
_GROWTH = 0.75

#: Smallest product of a precision that a label takes alone and of the number of images that show
#: it: what few images show may gain by chance.
_LEAST_ALONE = 2.0

#: Variance of the offsets of labels that keep the largest prior, in the usual one. What they gain
#: is small, and much of it may be how frequent they are in the corrected images.
_NEAR_OFFSETS = 10**-0.25

#: Precision of the prior where one example is asked what the others teach.
_PREDICTING = 1.0

#: IoU of the words on held-out images below which they find nothing of a label.
_FINDS_NOTHING = 0.1

#: Smallest product of a precision below `PRIORS` and the number of images that show the label.
_LEAST_LABEL_PRIOR = 0.8

_FOLDS = 5


@dataclass(frozen=True)
class Caution:
    """How much speaks for letting a label move farther from its words than the largest prior does.

    Attributes:
        clear_gain: IoU in [0, 1] that each smaller prior has to gain on held-out images of the
            label; the lower bound of the gain may lose nothing.
        least_prior: smallest product of a precision of `PRIORS` and the number of images.
        smallest: precision of a last prior, for labels that took the smallest of `PRIORS`; None
            tries none.
        uninformative: precision of the first smaller prior of labels of which their words find
            nothing, so that there is nothing to stay near to; a label that does not gain enough by
            it is treated as others are. None treats all so.
    """

    clear_gain: float
    least_prior: float
    smallest: float | None = None
    uninformative: float | None = None


#: What has to pass before anything else, the same but for labels of which words find nothing, and
#: what is tried beside it.
CAUTIOUS = Caution(0.15, 1.5)
UNINFORMED = replace(CAUTIOUS, uninformative=0.05)
FREE = replace(UNINFORMED, least_prior=1.0, smallest=0.1)


@dataclass(frozen=True, eq=False)
class Trial:
    """Labels that learn with a prior, and what that gives on held-out images.

    Attributes:
        learning: (G,) bool, the L labels that learn.
        prior: of these.
        counts: of the held-out patches of each example, see `count_patches`.
        comparison: with the text scores.
    """

    learning: BoolArray
    prior: Prior
    counts: Sequence[Float64Array]
    comparison: Comparison


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
        self._tried: dict[tuple[bytes, bytes, bytes], list[Float64Array]] = {}

    def words_ious(self) -> Float64Array:
        """Return the (G,) IoUs of the text scores."""
        return compare(self._words, self._words, self._clusters).before

    @cached_property
    def largest_prior(self) -> float:
        """Precision of the prior of labels that gain nothing clear by a smaller one, in images."""
        painted = len({each.cluster for each in self._evidence if each.known.any()})
        return float(PRIORS[0] * max(1.0, painted / _FEW_IMAGES) ** _GROWTH)

    @cached_property
    def painted_shares(self) -> Float64Array:
        """(G,) float64 in [0, 1], shares of the groups' held-out truth that are paint."""
        paint = np.sum(
            [(each.weights * each.known) @ each.target for each in self._evidence],
            axis=0,
            dtype=np.float64,
        )
        truth = np.sum([each[1] for each in self._words], axis=0)
        return np.asarray(paint / np.maximum(truth, 1e-12)).clip(0, 1)

    def choose(self, learning: BoolArray, caution: Caution) -> Trial:
        """Choose how far each label may move, and try it.

        The precision of a label's prior is the largest that is tried, unless a smaller one for all
        labels gains enough on held-out images of that label.

        Args:
            learning: (G,) bool, L of them true.
            caution: what is enough.
        """
        rows = np.flatnonzero(learning)
        smaller = [each for each in PRIORS[1:] if each * self._images >= caution.least_prior]
        tried = [self.largest_prior, *smaller]
        counts = self._with_equal_priors(learning, tried)
        chosen, best = np.full(len(rows), tried[0]), np.zeros(len(rows))

        def take(precisions: Float64Array, held_out: list[Float64Array]) -> None:
            comparison = compare(counts[0], held_out, self._clusters)
            gains = (comparison.after - comparison.before)[rows]
            better = (gains > best + caution.clear_gain) & (comparison.lows[rows] >= 0)
            better &= precisions < chosen
            chosen[better], best[better] = precisions[better], gains[better]

        least = _LEAST_LABEL_PRIOR / np.maximum(self._shown[rows], 1)
        if caution.uninformative is not None:
            nothing = self.words_ious()[rows] < _FINDS_NOTHING
            only = np.where(nothing, np.maximum(caution.uninformative, least), chosen)
            if nothing.any():
                take(only, self._held_out(learning, [_prior(only)])[0])
        for precision, each in zip(tried[1:], counts[1:], strict=True):
            take(np.full(len(rows), precision), each)
        if caution.smallest is not None:
            last = np.minimum(np.maximum(caution.smallest, least), chosen)
            last = np.where(chosen == tried[-1], last, chosen)
            if (last < chosen).any():
                take(last, self._held_out(learning, [_prior(last)])[0])
        for precision, each in zip(tried, counts, strict=True):
            if (chosen == precision).all():
                return self._trial(learning, _prior(chosen), each)
        return self.attempt(learning, _prior(chosen))

    def smaller_priors(self, trial: Trial, label_gain: float) -> Iterator[tuple[int, float]]:
        """Yield rows of labels that learn with smaller precisions, those that gain most first.

        Args:
            trial: of the labels.
            label_gain: IoU in [0, 1] that a label gains on held-out images where all have that
                precision, at least; the lower bound of the gain may lose nothing.
        """
        rows, smaller = np.flatnonzero(trial.learning), PRIORS[1:]
        counts = self._with_equal_priors(trial.learning, [self.largest_prior, *smaller])
        for precision, each in zip(smaller, counts[1:], strict=True):
            comparison = compare(counts[0], each, self._clusters)
            gains = (comparison.after - comparison.before)[rows]
            enough = (gains > label_gain) & (comparison.lows[rows] >= 0)
            enough &= precision * self._shown[rows] >= _LEAST_ALONE
            for row in np.argsort(-gains, kind="stable").tolist():
                if enough[row]:
                    yield row, precision

    def attempt(self, learning: BoolArray, prior: Prior) -> Trial:
        """Try a prior.

        Args:
            learning: (G,) bool, L of them true.
            prior: of these.
        """
        return self._trial(learning, prior, self._held_out(learning, [prior])[0])

    def step(self, trial: Trial, other: Trial, prevalence: float = 1.0) -> Comparison:
        """Compare another trial with a trial of the same labels, on held-out images.

        Its gain is the mean over the labels that learn: others have too few images for a mean.

        Args:
            trial: the trial before.
            other: the trial after.
            prevalence: how many times as frequent each label is taken to be.
        """
        before, after = (at_prevalence(each.counts, prevalence) for each in (trial, other))
        return compare(before, after, self._clusters, trial.learning)

    def predict(self, learning: BoolArray) -> list[npt.NDArray[np.intp]]:
        """Predict the (N,) groups of the patches of each example by a fit to the others.

        Args:
            learning: (G,) bool.
        """
        pairs = zip(self._evidence, self.held_out_terms(learning), strict=True)
        return [_logits(each, terms).argmax(axis=1) for each, terms in pairs]

    def held_out_terms(self, learning: BoolArray) -> list[Terms]:
        """Return for each example what a fit to the other folds adds.

        Args:
            learning: (G,) bool.
        """
        fits = self._fits(learning, [_predicting(learning)])
        return [terms for _, (terms,) in sorted(fits, key=lambda pair: pair[0])]

    def all_terms(self, learning: BoolArray) -> Terms:
        """Return what a fit to all examples adds, by the prior of `held_out_terms`.

        Args:
            learning: (G,) bool.
        """
        posterior = Posterior(self._evidence, _sum(self._statistics), learning)
        return posterior.mode(_predicting(learning))[1]

    def fit(self, trial: Trial) -> Terms:
        """Fit to all images what was tried on held-out ones."""
        posterior = Posterior(self._evidence, _sum(self._statistics), trial.learning)
        _, terms = posterior.mode(trial.prior)
        return terms

    @cached_property
    def _shown(self) -> npt.NDArray[np.intp]:
        """(G,) numbers of images that show each group."""
        return count_images(self._evidence, self._evidence[0].target.shape[1])

    @cached_property
    def _statistics(self) -> list[SufficientStatistics]:
        """The sufficient statistics of each fold."""
        pairs = list(zip(self._evidence, self._fold, strict=True))
        return [
            _sum([each.statistics for each, own in pairs if own == fold])
            for fold in range(self._fold.max() + 1)
        ]

    def _trial(self, learning: BoolArray, prior: Prior, counts: Sequence[Float64Array]) -> Trial:
        return Trial(
            learning,
            prior,
            counts,
            compare(self._words, counts, self._clusters, self.painted_shares),
        )

    def _with_equal_priors(
        self, learning: BoolArray, precisions: Sequence[float]
    ) -> list[list[Float64Array]]:
        """Count the held-out patches for one prior of all labels after another."""
        labels = int(learning.sum())
        return self._held_out(learning, [_prior(np.full(labels, each)) for each in precisions])

    def _held_out(self, learning: BoolArray, priors: Sequence[Prior]) -> list[list[Float64Array]]:
        """Count the held-out patches of each example, for each of several priors; each fit once."""
        keys = [(learning.tobytes(), *_key(prior)) for prior in priors]
        new = {k: prior for k, prior in zip(keys, priors, strict=True) if k not in self._tried}
        if new:
            self._tried.update(zip(new, self._count(learning, [*new.values()]), strict=True))
        return [self._tried[key] for key in keys]

    def _count(self, learning: BoolArray, priors: Sequence[Prior]) -> list[list[Float64Array]]:
        """Fit each prior to each fold, and count the held-out patches of each example."""
        counts: list[list[Float64Array]] = [[np.zeros(0)] * len(self._evidence) for _ in priors]
        for place, fits in self._fits(learning, priors):
            each = self._evidence[place]
            for own, terms in zip(counts, fits, strict=True):
                own[place] = count_patches(each, _logits(each, terms))
        return counts

    def _fits(
        self, learning: BoolArray, priors: Sequence[Prior]
    ) -> Iterator[tuple[int, list[Terms]]]:
        """Yield the index of each example, and a fit to the other folds for each prior."""
        for fold, own in enumerate(self._statistics):
            rest = [e for e, held in zip(self._evidence, self._fold, strict=True) if held != fold]
            others = [each for each in self._statistics if each is not own]
            posterior = Posterior(rest, _sum(others), learning)
            fits, weights = [], None
            for each in priors:  # each search starts at the last mode
                weights, terms = posterior.mode(each, weights)
                fits.append(terms)
            for place in np.flatnonzero(self._fold == fold).tolist():
                yield place, fits


def _prior(precisions: Float64Array) -> Prior:
    """Return the prior of (L,) precisions, at least `PRIORS[0]` where a label keeps the largest."""
    return Prior(precisions, np.where(precisions >= PRIORS[0], _NEAR_OFFSETS, 1.0))


def _key(prior: Prior) -> tuple[bytes, bytes]:
    """Return what tells priors of as many labels apart."""
    variances = np.asarray(prior.offset_variance, np.float64)
    return prior.precisions.tobytes(), np.broadcast_to(variances, prior.precisions.shape).tobytes()


def _predicting(learning: BoolArray) -> Prior:
    return Prior(np.full(int(learning.sum()), _PREDICTING))


def _sum(statistics: Sequence[SufficientStatistics]) -> SufficientStatistics:
    """Add up the statistics of at least one image."""
    return sum(statistics[1:], statistics[0])


def _logits(evidence: Evidence, terms: Terms) -> Float32Array:
    directions, offsets = terms
    logits: Float32Array = evidence.batch.text + evidence.batch.patches @ directions.T + offsets
    return logits
