"""Explaining away: leave out labels whose patches the other labels explain as well.

A word that lies between two things in the picture fits many of their patches better than either
thing's own word, so a comparison patch by patch cannot tell that it is absent. The picture as a
whole can: the features of all patches are close to non-negative sums of the words of what is there,
and a word between two others adds nothing to them. So labels are left out one by one, those first
that have the smallest part in the sums, where they are not missed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

#: A label is missed if without it the words explain this share less of the features. Chosen on
#: drawn scenes.
_MISSED = 0.006

#: Sweeps of coordinate descent: for the first fit, and once a label is left out.
_SWEEPS, _SWEEPS_AFTER = 30, 6

#: A label's share of a patch, or a step towards one, counts as none below this.
_NO_SHARE = 1e-9


def explain_away(patches: Matrix, words: Matrix, owners: Sequence[int]) -> list[int]:
    """Return the labels that are needed to explain the patches of an image, in ascending order.

    With the non-negative sums ``X W`` of words that come nearest to the patches F (least squares),
    what is explained is ``|F|² - |F - X W|²``. Each label is tried once: one that is missed is
    missed all the more once others are left out.

    Args:
        patches: (N, D) features.
        words: (Q, D) text embeddings.
        owners: label of each word; a label is left out with all its words.
    """
    fit = _Fit(patches @ words.T, words @ words.T, np.asarray(owners))
    limit = _MISSED * fit.explained
    untried = set(fit.labels)
    while untried and len(fit.labels) > 1:
        parts = fit.parts()
        label = min(untried, key=lambda each: (parts[each], each))
        untried.remove(label)
        fit.leave_out(label, limit)
    return fit.labels


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

    def parts(self) -> dict[int, float]:
        """Return for each label that is left the squared length of its part in the sums."""
        squares = (self._shares**2).sum(axis=0) * np.diag(self._gram)
        totals = np.bincount(self._owners, squares)
        return {label: float(totals[label]) for label in self.labels}

    def leave_out(self, label: int, limit: float) -> bool:
        """Leave a label out for good, unless that much less is explained without it.

        Args:
            label: the label.
            limit: of what is explained less.
        """
        kept = self._owners != label
        some = np.flatnonzero(self._shares[:, ~kept].max(axis=1) > _NO_SHARE)
        products, gram = self._products[:, kept], self._gram[np.ix_(kept, kept)]
        shares = self._shares[:, kept]
        refitted = _descend(products[some], gram, shares[some], _SWEEPS_AFTER)
        explained = (refitted * (2 * products[some] - refitted @ gram)).sum(axis=1)
        if self._by_patch[some].sum() - explained.sum() > limit:
            return False
        shares[some] = refitted
        self._by_patch[some] = explained
        self._shares, self._products, self._gram = shares, products, gram
        self._owners = self._owners[kept]
        return True

    def _explained(self, shares: Matrix, some: slice) -> Matrix:
        """Return (n,) what shares explain of some patches."""
        explained: Matrix = (shares * (2 * self._products[some] - shares @ self._gram)).sum(axis=1)
        return explained


def _descend(products: Matrix, gram: Matrix, shares: Matrix, sweeps: int) -> Matrix:
    """Improve (N, Q) non-negative shares by coordinate descent; return new ones.

    A sweep visits the words alone of which some patch has a share or would take one.
    """
    columns = shares.T.copy()
    rests = products.T - gram @ columns  # (Q, N), what is left of the products
    norms = np.diag(gram)
    for _ in range(sweeps):
        moving = (columns > 0).any(axis=1) | (rests > _NO_SHARE).any(axis=1)
        largest = 0.0
        for word in np.flatnonzero(moving):
            step = np.maximum(rests[word] / norms[word], -columns[word])
            size = np.abs(step).max(initial=0.0)
            if size > _NO_SHARE:
                columns[word] += step
                rests -= gram[word, :, None] * step
                largest = max(largest, size)
        if largest <= _NO_SHARE:
            break
    return columns.T
