"""Explaining away: leave out labels whose patches the other labels explain as well.

A word that lies between two things in the picture fits many of their patches better than either
thing's own word, so a comparison patch by patch cannot tell that it is absent. The picture as a
whole can: the features of all patches are close to non-negative sums of the words of what is there,
and a word between two others adds nothing to them. So labels are left out one by one, each time the
one that is missed least, until one is missed.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

#: A label is missed if without it the words explain this share less of the features. Chosen on
#: drawn scenes.
_MISSED = 0.006

#: Sweeps of coordinate descent: for the first fit, and once a label is left out.
_SWEEPS, _SWEEPS_AFTER = 30, 3

#: A label's share of a patch, or a step towards one, counts as none below this.
_NO_SHARE = 1e-9


def explain_away(patches: Matrix, words: Matrix, owners: Sequence[int]) -> list[int]:
    """Return the labels that are needed to explain the patches of an image, in ascending order.

    With the non-negative sums ``X W`` of words that come nearest to the patches F (least squares),
    what is explained is ``|F|² - |F - X W|²``.

    Args:
        patches: (N, D) features.
        words: (Q, D) text embeddings.
        owners: label of each word; a label is left out with all its words.
    """
    fit = _Fit(patches @ words.T, words @ words.T, np.asarray(owners))
    limit = _MISSED * fit.explained
    queue = [(fit.without(label).loss, label) for label in fit.labels]
    heapq.heapify(queue)
    while len(queue) > 1:
        # A loss grows as other labels are left out. So that of the first is computed anew, and
        # where it is still the least it is left out.
        _, label = heapq.heappop(queue)
        refit = fit.without(label)
        if refit.loss > queue[0][0]:
            heapq.heappush(queue, (refit.loss, label))
        elif refit.loss > limit:
            break
        else:
            fit.leave_out(label, refit)
    return fit.labels


class _Refit(NamedTuple):
    """The fit of the patches that have a share of a label, without it.

    Attributes:
        some: (n,) these patches.
        shares: (n, Q') their shares of the words that stay.
        explained: (n,) what is explained of them.
        loss: by how much less is explained.
    """

    some: npt.NDArray[np.intp]
    shares: Matrix
    explained: Matrix
    loss: float


class _Fit:
    """Non-negative shares of words in patches.

    Args:
        products: (N, Q) inner products of patches and words.
        gram: (Q, Q) inner products of the words.
        owners: (Q,) label of each word.
    """

    def __init__(self, products: Matrix, gram: Matrix, owners: npt.NDArray[np.intp]) -> None:
        self._products, self._gram, self._owners = products, gram, owners
        self._shares = _descend(products, gram, np.zeros_like(products), _SWEEPS)
        self._by_patch = self._explained(self._shares, slice(None))

    @property
    def labels(self) -> list[int]:
        """The labels that are left, in ascending order."""
        return [int(label) for label in np.unique(self._owners)]

    @property
    def explained(self) -> float:
        """What is explained of all patches."""
        return float(self._by_patch.sum())

    def without(self, label: int) -> _Refit:
        """Fit without a label; nothing is changed."""
        kept = self._owners != label
        some = np.flatnonzero(self._shares[:, ~kept].max(axis=1) > _NO_SHARE)
        products, gram = self._products[np.ix_(some, kept)], self._gram[np.ix_(kept, kept)]
        shares = _descend(products, gram, self._shares[np.ix_(some, kept)], _SWEEPS_AFTER)
        explained = (shares * (2 * products - shares @ gram)).sum(axis=1)
        return _Refit(some, shares, explained, float(self._by_patch[some].sum() - explained.sum()))

    def leave_out(self, label: int, refit: _Refit) -> None:
        """Leave a label out for good.

        Args:
            label: the label.
            refit: the fit without it.
        """
        kept = self._owners != label
        self._shares = self._shares[:, kept]
        self._shares[refit.some] = refit.shares
        self._by_patch[refit.some] = refit.explained
        self._products, self._gram = self._products[:, kept], self._gram[np.ix_(kept, kept)]
        self._owners = self._owners[kept]

    def _explained(self, shares: Matrix, some: slice) -> Matrix:
        """Return (n,) what shares explain of some patches."""
        explained: Matrix = (shares * (2 * self._products[some] - shares @ self._gram)).sum(axis=1)
        return explained


def _descend(products: Matrix, gram: Matrix, shares: Matrix, sweeps: int) -> Matrix:
    """Improve (N, Q) non-negative shares by coordinate descent; return new ones.

    A sweep visits the words alone of which some patch has a share or would take one.
    """
    columns = shares.T.copy()
    for _ in range(sweeps):
        rests = products.T - gram @ columns  # (Q, N), what is left of the products
        moving = np.flatnonzero((columns > 0).any(axis=1) | (rests > _NO_SHARE).any(axis=1))
        rests, among = rests[moving], gram[np.ix_(moving, moving)]
        largest = 0.0
        for place, word in enumerate(moving):
            step = np.maximum(rests[place] / among[place, place], -columns[word])
            size = float(np.abs(step).max(initial=0.0))
            if size > _NO_SHARE:
                columns[word] += step
                rests -= among[place, :, None] * step
                largest = max(largest, size)
        if largest <= _NO_SHARE:
            break
    return columns.T
