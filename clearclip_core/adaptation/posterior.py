"""The posterior of a logistic regression around the text logits, and its mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from clearclip_core.adaptation.contradictions import BoolArray
from clearclip_core.adaptation.evidence import Evidence
from clearclip_core.adaptation.examples import Float32Array
from clearclip_core.adaptation.prevalence import weigh_labels
from clearclip_core.adaptation.sufficient_statistics import Float64Array, SufficientStatistics

#: Weight of the identity in the covariance matrix.
_SHRINKAGE = 0.1

#: Value of the constant feature: its square is the prior variance of an offset, in that of a
#: direction. A larger one also learns how frequent a label is in the corrected pictures: that gains
#: a little where others are alike, and costs labels that are more frequent elsewhere.
_OFFSET_SCALE = 10**0.25

_STOP = {"maxiter": 200, "ftol": 1e-7, "gtol": 1e-5}

#: (G, D) directions and (G,) offsets to add to the groups' logits, float32.
Terms = tuple[Float32Array, Float32Array]


@dataclass(frozen=True, eq=False)
class Prior:
    """A Gaussian around weights of 0, one for each of L groups.

    Attributes:
        precisions: (L,) float64, of a direction, in images.
        offset_variance: variance of an offset, in its usual one (`_OFFSET_SCALE` squared): one of
            all, or (L,) float64.
    """

    precisions: Float64Array
    offset_variance: float | Float64Array = 1.0

    def with_precision(self, row: int, precision: float) -> Prior:
        """Return the prior with another precision of a group, whose offset varies as usual or more.

        Args:
            row: of the group among the L.
            precision: of its direction, in images.
        """
        precisions = self.precisions.copy()
        variances = np.array(np.broadcast_to(self.offset_variance, precisions.shape), np.float64)
        precisions[row], variances[row] = precision, max(variances[row], 1.0)
        return Prior(precisions, variances)


class Posterior:
    """Posterior of the weights of a multinomial logistic regression, given corrected images.

    The model is a softmax over the groups' text logits plus a linear function of the whitened
    features. The prior is a Gaussian around weights of 0, at which the logits are the text's. The
    negative log posterior is convex and has one minimum. Only the groups that learn have weights;
    the logits of the others stay. Labels that may be more frequent elsewhere weigh more, see
    `clearclip_core.adaptation.prevalence`.

    Args:
        evidence: the corrected images.
        statistics: their sufficient statistics.
        learning: (G,) bool, the groups that have weights.
    """

    def __init__(
        self,
        evidence: Sequence[Evidence],
        statistics: SufficientStatistics,
        learning: BoolArray,
    ) -> None:
        patches = _joined([each.batch.patches for each in evidence])
        truth = _joined([each.observations for each in evidence]) * weigh_labels(evidence)
        self._text = _joined([each.batch.text for each in evidence])
        self._counts = truth.sum(axis=1)
        self._mean = self._counts @ patches / max(self._counts.sum(), 1e-12)
        self._whiten = statistics.whitening(_SHRINKAGE)
        white = (patches - self._mean) @ self._whiten
        offset = np.full((len(white), 1), _OFFSET_SCALE)
        self._white = np.concatenate([white, offset], axis=1)  # (N, D + 1)
        self._adapted = np.flatnonzero(learning)
        self._groups = len(learning)
        self._linear = truth[:, self._adapted].T @ self._white
        self._constant = float((truth * self._text).sum())
        self.shape = len(self._adapted), self._white.shape[1]

    def mode(self, prior: Prior, start: Float64Array | None = None) -> tuple[Float64Array, Terms]:
        """Find the mode.

        Args:
            prior: of the groups that learn.
            start: (L, D + 1) weights to begin at; None begins at the text's.

        Returns:
            (L, D + 1) float64 weights, and the terms of all groups.
        """
        first = np.zeros(self.shape) if start is None else start
        precisions = np.repeat(prior.precisions[:, None], self.shape[1], axis=1)
        precisions[:, -1] /= prior.offset_variance
        found = minimize(
            self.negative_log, first.ravel(), (precisions,), "L-BFGS-B", jac=True, options=_STOP
        )
        weights = found.x.reshape(self.shape)
        return weights, self.terms(weights)

    def negative_log(
        self, flat: Float64Array, precisions: Float64Array
    ) -> tuple[float, Float64Array]:
        """Return the negative log posterior up to a constant, and its gradient.

        Args:
            flat: (L * (D + 1),) float64 weights of the L groups that learn.
            precisions: (L, D + 1) float64, of the Gaussian prior of each weight, in images.
        """
        weights = flat.reshape(self.shape)
        logits = self._text.copy()
        logits[:, self._adapted] += self._white @ weights.T
        highest = logits.max(axis=1, keepdims=True)
        shares = np.exp(logits - highest)  # up to each row's sum
        total = shares.sum(axis=1)
        sums = np.log(total) + highest[:, 0]
        value = self._counts @ sums - (self._linear * weights).sum() - self._constant
        shares = shares[:, self._adapted] * (self._counts / total)[:, None]
        gradient = shares.T @ self._white - self._linear + precisions * weights
        value += (precisions * weights * weights).sum() / 2
        return float(value), gradient.ravel()

    def terms(self, weights: Float64Array) -> Terms:
        """Return weights as (G, D) directions and (G,) offsets of the features' logits, float32.

        Args:
            weights: (L, D + 1) float64; the other groups' terms are 0.
        """
        directions, offsets = np.zeros((self._groups, len(self._mean))), np.zeros(self._groups)
        directions[self._adapted] = weights[:, :-1] @ self._whiten.T
        offsets[self._adapted] = weights[:, -1] * _OFFSET_SCALE
        offsets -= directions @ self._mean
        return directions.astype(np.float32), offsets.astype(np.float32)


def _joined(arrays: Sequence[Float32Array]) -> Float64Array:
    return np.concatenate(arrays).astype(np.float64)
