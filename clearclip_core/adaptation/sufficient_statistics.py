"""Sufficient statistics of corrected images: sums from which the covariance is computed.

Sums of different images add up in any order and from several machines. The sums of an image that
is deleted or changed are subtracted again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.adaptation.serialization import check_names, check_shape

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """Sums over corrected images: add images, merge replicas, subtract an image again.

    In an image, a label that covers n patches has the weight ``n / (n + 4)``. The sums are of
    weights, of weighted mean features and of weighted mean products of features.

    Attributes:
        names: names of the labels, sorted; "" stands for the area without a label.
        counts: (K,) float64 sums of weights: about the number of images that show a label.
        sums: (K, D) float64 weighted sums of the labels' mean features.
        moment: (D, D) float64 weighted sum of the mean products f fᵀ, over all labels.
        pictures: number of images.

    Raises:
        ValueError: the shapes do not fit, or names are not sorted.

    >>> one = SufficientStatistics(("sky",), np.ones(1), np.array([[0.6, 0.8]]), np.eye(2), 1)
    >>> (one + one - one).counts
    array([1.])
    """

    names: tuple[str, ...]
    counts: Float64Array
    sums: Float64Array
    moment: Float64Array
    pictures: int

    def __post_init__(self) -> None:
        check_names(self.names)
        check_shape("counts", self.counts, (len(self.names),))
        check_shape("sums", self.sums, (len(self.names), self.width))
        check_shape("moment", self.moment, (self.width, self.width))

    @classmethod
    def empty(cls, width: int) -> SufficientStatistics:
        """Return the statistics of no image.

        Args:
            width: dimension of the features, D.
        """
        return cls((), np.zeros(0), np.zeros((0, width)), np.zeros((width, width)), 0)

    @property
    def width(self) -> int:
        """Dimension of the features, D."""
        return int(self.moment.shape[0])

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        return self._plus(other, 1)

    def __sub__(self, other: SufficientStatistics) -> SufficientStatistics:
        return self._plus(other, -1)

    def whitening(self, shrinkage: float) -> Float64Array:
        """Return the (D, D) matrix that whitens features within labels; symmetric.

        It is the inverse root of one covariance matrix for all labels, around each label's mean,
        shrunk towards a multiple of the identity with the same trace.

        Args:
            shrinkage: weight of the identity, in (0, 1].
        """
        enough = self.counts > 1e-6
        counts, sums = self.counts[enough], self.sums[enough]
        within = self.moment - scatter_matrix(sums, 1 / counts)
        size = np.trace(within) / self.width
        if size <= 0:
            return np.eye(self.width)
        values, vectors = (each.numpy() for each in torch.linalg.eigh(torch.from_numpy(within)))
        shrunk = (1 - shrinkage) * values.clip(0) + shrinkage * size
        root: Float64Array = vectors * np.sqrt(counts.sum() / shrunk) @ vectors.T
        return root

    def _plus(self, other: SufficientStatistics, sign: int) -> SufficientStatistics:
        if other.width != self.width:
            raise ValueError(
                f"Expected statistics of {self.width} numbers a feature, but got {other.width}."
            )
        names = tuple(sorted({*self.names, *other.names}))
        counts, sums = np.zeros(len(names)), np.zeros((len(names), self.width))
        for each, factor in ((self, 1), (other, sign)):
            rows = [names.index(name) for name in each.names]
            counts[rows] += factor * each.counts
            sums[rows] += factor * each.sums
        moment = self.moment + sign * other.moment
        return SufficientStatistics(
            names, counts, sums, moment, self.pictures + sign * other.pictures
        )


def scatter_matrix(rows: Float64Array, weights: Float64Array) -> Float64Array:
    """Return the weighted sum of the rows' outer products with themselves, (D, D) float64.

    Args:
        rows: (N, D) float64.
        weights: (N,) float64.
    """
    each = torch.from_numpy(rows)
    scatter: Float64Array = ((each.T * torch.from_numpy(weights)) @ each).numpy()
    return scatter
