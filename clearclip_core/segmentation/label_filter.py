"""Label filter: drop the labels of an image that have no support in it, or that others explain.

A label that is absent from an image is likely in a few scattered patches at most. Its probability,
spread over the patches that look alike, then becomes a map that has little in common with the
probability itself. The probability of a label that is there fills a region of similar patches, and
stays. This is the redundancy step of FreeCP (https://github.com/chenqi1126/FreeCP), with two
differences. Patches are alike by their dense features, which are at hand in any cache, in place of
the attention of all blocks. And a label is dropped from a whole image, where no window supports it,
so that no seam between windows comes of it.

Of the labels with support, FreeCP lets a language model's descriptions decide between those of one
place. Here those are dropped that the others explain, see `explaining_away`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from clearclip_core.segmentation.dense_features import DenseFeatures
from clearclip_core.segmentation.explaining_away import explain_away
from clearclip_core.segmentation.scores import Scores

#: A patch belongs to a label's boxes from this share of the label's largest value on (FreeCP).
_BOX_SHARE = 0.4

#: How often the affinity's columns and rows are divided by their sums (FreeCP).
_NORMALISATIONS = 3

#: Power of the cosines in the affinity, where those below 0 count as 0. Chosen on drawn scenes.
_AFFINITY_POWER = 4

#: Patches of an image that the labels have to explain, at equal steps.
_EXPLAINED_PATCHES = 400

#: Labels with the most support that are kept at most: explaining takes time with their square.
_MOST_LABELS = 100

#: Least sum in a division, far below that of one patch.
_TINY = 1e-8


def check_label_filter(threshold: float) -> None:
    """Check the threshold of a label filter.

    Raises:
        ValueError: it is not in [0, 0.5).
    """
    if not (math.isfinite(threshold) and 0 <= threshold < 0.5):
        raise ValueError(
            f"Expected argument `label_filter` to be at least 0 and below 0.5, but got {threshold}."
        )


def filter_labels(
    features: DenseFeatures, scores: Scores, embeddings: torch.Tensor, threshold: float
) -> Scores:
    """Return scores in which labels without support, and those that others explain, win nowhere.

    Contrast words and a background label always stay. Where no label has support, all stay.

    Args:
        features: features of the image.
        scores: its scores.
        embeddings: (Q, D) embeddings of the scores' queries.
        threshold: least support of a label, see `label_support`.
    """
    labels = scores.vocabulary.labels
    fixed = [index for index, label in enumerate(labels) if label.background]
    support = label_support(features, scores).max(axis=0)
    by_support = [int(index) for index in np.argsort(-support) if index not in fixed]
    supported = [index for index in by_support if support[index] > threshold][:_MOST_LABELS]
    if not supported:
        return scores
    kept = [*fixed, *_needed(features, embeddings, scores, supported)]
    return scores.without([index for index in range(len(labels)) if index not in kept])


def _needed(
    features: DenseFeatures, embeddings: torch.Tensor, scores: Scores, labels: Sequence[int]
) -> list[int]:
    """Return those of some labels that are needed to explain a sample of the patches."""
    flat = features.patches.flatten(0, 2)
    count = min(len(flat), _EXPLAINED_PATCHES)
    sampled = ((torch.arange(count) + 0.5) * len(flat) / count).long()
    patches = flat[sampled.to(flat.device)].to("cpu", torch.float64).numpy()
    owners = np.array(scores.vocabulary.query_labels)
    words = np.flatnonzero(np.isin(owners, labels))
    rows = embeddings.to("cpu", torch.float64).numpy()[words]
    return explain_away(patches, rows, owners[words].tolist())


def label_support(features: DenseFeatures, scores: Scores) -> npt.NDArray[np.float64]:
    """Compute how well each label's probability fills regions of similar patches.

    With p the probability of a label at the patches of a window, softmaxed over the labels and the
    contrast words, each by its best query, and r its refined map in [0, 1], the support is
    ``Σ p·r / (Σ p + Σ r)``. It is at most 1/2, where both are 1 in a region and 0 elsewhere.

    Args:
        features: features of the image.
        scores: its scores.

    Returns:
        (windows, labels) float64 in [0, 0.5].
    """
    probabilities = _probabilities(scores)
    supports = []
    for patches, probability in zip(features.patches, probabilities, strict=True):
        affinity = _affinity(patches.reshape(-1, patches.shape[-1]).to("cpu", torch.float32))
        refined = _refine(probability.numpy(), affinity.numpy())
        flat = probability.flatten(1).numpy()
        total = flat.sum(axis=1, dtype=np.float64) + refined.sum(axis=1, dtype=np.float64)
        supports.append(np.einsum("ln,ln->l", flat, refined) / (total + _TINY))
    return np.stack(supports)


def _probabilities(scores: Scores) -> torch.Tensor:
    """Return (windows, labels, h, w) probabilities on the CPU."""
    owners = torch.tensor(scores.vocabulary.query_labels)
    cosines = scores.cosines.to("cpu", torch.float32)
    labels = range(len(scores.vocabulary.labels))
    classes = [*labels, -1] if (owners < 0).any() else labels  # contrast words are one class
    best = torch.stack([cosines[owners == index].amax(dim=0) for index in classes])
    shares = (scores.temperature * best).softmax(dim=0)
    return scores.plan.unmosaic(shares[: len(labels)])


def _affinity(patches: torch.Tensor) -> torch.Tensor:
    """Return (N, N) how alike (N, D) patches of a window are, doubly normalised; symmetric."""
    centred = F.normalize(patches - patches.mean(dim=0), dim=1)
    alike = centred @ centred.T
    alike.clamp_(min=0).pow_(_AFFINITY_POWER).diagonal().add_(_TINY)
    # Rows and columns are divided by their sums as factors of either: the matrix stays as it is.
    rows = columns = torch.ones(len(alike))
    for _ in range(_NORMALISATIONS):
        columns = 1 / (rows @ alike)
        rows = 1 / (alike @ columns)
    alike.mul_(torch.outer(rows, columns).add_(torch.outer(columns, rows)).mul_(0.5))
    return alike


def _refine(
    probability: npt.NDArray[np.float32], affinity: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Spread (L, h, w) probabilities within the labels' boxes twice over alike patches: (L, N)."""
    unit = _stretched(probability, axes=(0, 1, 2))
    inside = np.stack([_boxes(one) for one in unit])
    spread = (unit * inside).reshape(len(unit), -1) @ affinity @ affinity
    return _stretched(np.asarray(spread, np.float32), axes=(1,))


def _boxes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return (h, w) bool: the boxes around the connected parts of large values."""
    large = (values > _BOX_SHARE * values.max()).astype(np.uint8)
    _, _, parts, _ = cv2.connectedComponentsWithStats(large, connectivity=8)
    inside = np.zeros(values.shape, np.bool_)
    for left, top, width, height, _ in parts[1:]:
        inside[top : top + height, left : left + width] = True
    return inside


def _stretched(values: npt.NDArray[np.float32], axes: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Stretch values to [0, 1] along axes; equal values become 0."""
    low = values.min(axis=axes, keepdims=True)
    span = values.max(axis=axes, keepdims=True) - low
    stretched: npt.NDArray[np.float32] = (values - low) / np.where(span > 0, span, 1)
    return stretched
