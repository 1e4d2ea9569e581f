"""Which label a painted part looks like, by the parts of the other images.

Linear discriminant analysis: the descriptions of each label's parts are normal around a mean of
their own, with one covariance for all labels, and no label is more frequent than another (Fisher,
1936; Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", Sec. 4.3). It is
fitted to all folds of the images but one, so a part is judged by annotations of other images:
out-of-sample probabilities, as confident learning asks for (Northcutt, Jiang and Chuang, 2021).

Of few parts little is known. So the covariance is shrunk towards a multiple of the identity (Ledoit
and Wolf, 2004, shrink to the same), and labels on few of the other images are not compared.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from clearclip_core.thread_pools import one_blas_thread

#: Folds of consecutive images: frames of a drive lie in one, but for those at its ends.
_FOLDS: Final = 8

#: On so many of the other images a label is, or it is not compared.
LEAST_IMAGES: Final = 5

#: Of fewer images none is judged: right parts look too much like other labels by chance.
LEAST_JUDGED: Final = 20

#: The covariance is shrunk by that at least.
_LEAST_SHRINKAGE: Final = 0.05

#: Of standardised numbers; less is rounding where all parts of a label are equal.
_LEAST_VARIANCE: Final = 1e-7

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]


@one_blas_thread()
def held_out_log_probabilities(
    descriptions: Float64Array, labels: IntArray, images: IntArray, count: int
) -> Float64Array:
    """Return the log probability of each label for each part, by parts of other images.

    Args:
        descriptions: (n, d) of the parts, finite.
        labels: (n,) index of the label that each part is painted as, below `count`.
        images: (n,) number of the image of each part, equal for all annotations of an image. Images
            whose numbers follow one another may be of one fold.
        count: number of labels K.

    Returns:
        (n, K) natural logarithms; minus infinity for labels that are on fewer than `LEAST_IMAGES`
        images outside of the part's fold, and for all where fewer than two labels are on so many,
        or there are fewer than `LEAST_JUDGED` images.
    """
    found = np.full((len(labels), count), -np.inf)
    if len(np.unique(images)) < LEAST_JUDGED:
        return found
    spread = descriptions.std(axis=0)
    standardised = (descriptions - descriptions.mean(axis=0)) / np.where(spread > 0, spread, 1)
    for fold in _folds(images):
        shown = np.unique(images[~fold] * count + labels[~fold])  # pairs of image and label
        on_images: IntArray = np.bincount(shown % count, minlength=count)
        known = np.flatnonzero(on_images >= LEAST_IMAGES)
        learned = ~fold & np.isin(labels, known)
        if len(known) < 2:
            continue
        weights, offsets = _fit(
            standardised[learned], np.searchsorted(known, labels[learned]), on_images[known]
        )
        found[np.ix_(fold, known)] = _log_softmax(standardised[fold] @ weights + offsets)
    return found


def _folds(images: IntArray) -> list[BoolArray]:
    """Return (n,) bools of the parts of each fold: blocks of images with about equally many."""
    numbers, image = np.unique(images, return_inverse=True)
    return [image * _FOLDS // len(numbers) == fold for fold in range(_FOLDS)]


def _fit(
    descriptions: Float64Array, labels: IntArray, on_images: IntArray
) -> tuple[Float64Array, Float64Array]:
    """Fit the (d, K) weights and (K,) offsets of the discriminant functions.

    A mean of n images is off, so parts seem farther from it than they are: their squared distance
    is larger by d / n on average, which is taken away.
    """
    parts, width = descriptions.shape
    count = len(on_images)
    sums = np.zeros((count, width))
    np.add.at(sums, labels, descriptions)
    means = sums / np.bincount(labels, minlength=count)[:, None]
    rest = descriptions - means[labels]
    freedom = parts - count
    covariance = rest.T @ rest / freedom
    shrinkage = max(_LEAST_SHRINKAGE, width / (width + freedom))
    variance = max(float(np.trace(covariance)) / width, _LEAST_VARIANCE)
    covariance = (1 - shrinkage) * covariance + shrinkage * variance * np.eye(width)
    weights = np.asarray(np.linalg.solve(covariance, means.T), np.float64)
    offsets: Float64Array = 0.5 * (width / on_images - (means.T * weights).sum(axis=0))
    return weights, offsets


def _log_softmax(values: Float64Array) -> Float64Array:
    """Return the logarithms of the softmax over the last axis."""
    values = values - values.max(axis=1, keepdims=True)
    logarithms: Float64Array = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    return logarithms
