"""Which label a painted part looks like, by the parts of the other images.

Linear discriminant analysis: the descriptions of each label's parts are normal around a mean of
their own, with one covariance for all labels (Fisher, 1936; Hastie, Tibshirani and Friedman, "The
Elements of Statistical Learning", Sec. 4.3). It is fitted to all folds of the images but one, so a
part is judged by annotations of other images: out-of-sample probabilities, as confident learning
asks for (Northcutt, Jiang and Chuang, 2021). Of few parts two things are known beforehand:

- the mean of a label lies where the scores see it, by as much as they see other labels in theirs;
- the covariance is a multiple of the identity (Ledoit and Wolf, 2004, shrink to the same).

Both count as a fixed number of parts, so annotations outweigh them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from clearclip_core.thread_pools import one_blas_thread

#: Folds of consecutive images: frames of a drive lie in one, but for those at its ends.
_FOLDS: Final = 8

#: The mean of a label that is known beforehand counts as so many parts, and so does its frequency.
_PRIOR_PARTS: Final = 0.5

#: The covariance is shrunk by that at least.
_LEAST_SHRINKAGE: Final = 0.05

#: Of standardised numbers; less is rounding where all parts of a label are equal.
_LEAST_VARIANCE: Final = 1e-7

#: A label tells by so many parts at most where means of other labels lie.
_MOST_PARTS: Final = 10

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


@one_blas_thread()
def held_out_log_probabilities(
    descriptions: Float64Array, labels: IntArray, images: IntArray, count: int
) -> Float64Array:
    """Return the log probability of each label for each part, by parts of other images.

    Args:
        descriptions: (n, d) of the parts, finite; the first `count` columns are the scores of the
            labels.
        labels: (n,) index of the label that each part is painted as, below `count`.
        images: (n,) number of the image of each part. Images whose numbers follow one another may
            be of one fold.
        count: number of labels K.

    Returns:
        (n, K) natural logarithms. All are equal where there are no parts of other images.
    """
    spread = descriptions.std(axis=0)
    standardised = (descriptions - descriptions.mean(axis=0)) / np.where(spread > 0, spread, 1)
    found = np.full((len(labels), count), -np.log(count))
    for fold in _folds(images):
        if not fold.all():
            weights, offsets = _fit(standardised[~fold], labels[~fold], count)
            found[fold] = _log_softmax(standardised[fold] @ weights + offsets)
    return found


def _folds(images: IntArray) -> list[npt.NDArray[np.bool_]]:
    """Return (n,) bools of the parts of each fold: blocks of images with about equally many."""
    numbers, image = np.unique(images, return_inverse=True)
    folds = min(_FOLDS, len(numbers))
    return [image * folds // len(numbers) == fold for fold in range(folds)]


def _fit(
    descriptions: Float64Array, labels: IntArray, count: int
) -> tuple[Float64Array, Float64Array]:
    """Fit the (d, K) weights and (K,) offsets of the discriminant functions."""
    parts, width = descriptions.shape
    sizes: IntArray = np.bincount(labels, minlength=count)
    sums = np.zeros((count, width))
    np.add.at(sums, labels, descriptions)
    means = sums + _PRIOR_PARTS * _expected_means(sums, sizes)
    means /= (sizes + _PRIOR_PARTS)[:, None]
    rest = descriptions - means[labels]
    covariance = rest.T @ rest / parts
    shrinkage = max(_LEAST_SHRINKAGE, width / (width + parts))
    variance = max(float(np.trace(covariance)) / width, _LEAST_VARIANCE)
    covariance = (1 - shrinkage) * covariance + shrinkage * variance * np.eye(width)
    weights = np.asarray(np.linalg.solve(covariance, means.T), np.float64)
    counted = sizes + _PRIOR_PARTS
    offsets: Float64Array = np.log(counted / counted.sum()) - 0.5 * (means.T * weights).sum(axis=0)
    return weights, offsets


def _expected_means(sums: Float64Array, parts: IntArray) -> Float64Array:
    """Return the (K, d) means that are expected of labels of which nothing is known.

    A label's own score is higher in its parts, by as much as it is in those of other labels on
    average. All else is as in all parts, at 0.
    """
    known = np.flatnonzero(parts)
    own = sums[known, known] / parts[known]
    lead = float(np.average(own, weights=np.minimum(parts[known], _MOST_PARTS)))
    expected = np.zeros_like(sums)
    np.fill_diagonal(expected, max(lead, 0.0))
    return expected


def _log_softmax(values: Float64Array) -> Float64Array:
    """Return the logarithms of the softmax over the last axis."""
    values = values - values.max(axis=1, keepdims=True)
    logarithms: Float64Array = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    return logarithms
