"""The posterior of a logistic regression around the text logits, and its mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from clearclip_core.adaptation.batch import Batch
from clearclip_core.adaptation.examples import Float32Array
from clearclip_core.adaptation.sufficient_statistics import Float64Array, SufficientStatistics

#: Weight of the identity in the covariance matrix.
_SHRINKAGE = 0.1

#: Value of the constant feature: the prior variance of an offset is ten times a direction's.
_OFFSET_SCALE = 10**0.5

_STOP = {"maxiter": 200, "ftol": 1e-7, "gtol": 1e-5}


def posterior_modes(
    batches: Sequence[Batch], statistics: SufficientStatistics, priors: Sequence[float]
) -> Iterator[tuple[Float32Array, Float32Array]]:
    """Find the mode of the posterior for each prior.

    Args:
        batches: the corrected images.
        statistics: their sufficient statistics.
        priors: precisions of the prior, the largest first: each search starts at the last mode.

    Yields:
        For each prior (G, D) directions and (G,) offsets to add to the groups' logits, float32.
    """
    posterior = Posterior(batches, statistics.whitening(_SHRINKAGE))
    mode = np.zeros(posterior.shape)
    for prior in priors:
        found = minimize(
            posterior.negative_log, mode.ravel(), (prior,), "L-BFGS-B", jac=True, options=_STOP
        )
        mode = found.x.reshape(posterior.shape)
        yield posterior.terms(mode)


class Posterior:
    """Posterior of the weights of a multinomial logistic regression, given corrected images.

    The model is a softmax over the groups' text logits plus a linear function of the whitened
    features. The prior is a Gaussian around weights of 0, at which the logits are the text's. The
    negative log posterior is convex and has one minimum. Only groups with corrections have
    weights; the logits of the others stay.

    All products are computed by torch, which shares its threads with the model; NumPy would start
    threads of its own.

    Args:
        batches: the corrected images.
        whiten: (D, D) float64, see ``SufficientStatistics.whitening``.
    """

    def __init__(self, batches: Sequence[Batch], whiten: Float64Array) -> None:
        def concatenate(field: str) -> torch.Tensor:
            return torch.from_numpy(np.concatenate([getattr(each, field) for each in batches]))

        patches = concatenate("patches").double()
        truth = concatenate("truth").double()
        self._text = concatenate("text").double()
        self._counts = truth.sum(dim=1)
        self._mean = self._counts @ patches / self._counts.sum().clamp(min=1e-12)
        self._whiten = torch.from_numpy(whiten)
        white = (patches - self._mean) @ self._whiten
        self._white = F.pad(white, (0, 1), value=_OFFSET_SCALE)  # (N, D + 1)
        self._adapted = truth.any(dim=0)
        self._truth = truth[:, self._adapted]
        self._linear = self._truth.T @ self._white
        self._constant = float((truth * self._text).sum())
        self.shape = self._linear.shape[0], self._linear.shape[1]

    def negative_log(self, flat: Float64Array, prior: float) -> tuple[float, Float64Array]:
        """Return the negative log posterior up to a constant, and its gradient.

        Args:
            flat: (L * (D + 1),) float64 weights of the L groups with corrections.
            prior: precision of the Gaussian prior, in images.
        """
        weights = torch.from_numpy(flat).reshape(self.shape)
        logits = self._text.clone()
        logits[:, self._adapted] += self._white @ weights.T
        sums = torch.logsumexp(logits, dim=1)
        value = self._counts @ sums - (self._linear * weights).sum() - self._constant
        shares = torch.exp(logits[:, self._adapted] - sums[:, None]) * self._counts[:, None]
        gradient = shares.T @ self._white - self._linear + prior * weights
        value = value + prior / 2 * (weights * weights).sum()
        return float(value), gradient.reshape(-1).numpy()

    def terms(self, weights: Float64Array) -> tuple[Float32Array, Float32Array]:
        """Return weights as (G, D) directions and (G,) offsets of the features' logits, float32.

        Args:
            weights: (L, D + 1) float64; the other groups' terms are 0.
        """
        free = torch.from_numpy(weights)
        groups, width = len(self._adapted), self._white.shape[1] - 1
        directions, offsets = torch.zeros(groups, width).double(), torch.zeros(groups).double()
        directions[self._adapted] = free[:, :-1] @ self._whiten.T
        offsets[self._adapted] = free[:, -1] * _OFFSET_SCALE
        offsets -= directions @ self._mean
        return directions.numpy().astype(np.float32), offsets.numpy().astype(np.float32)
