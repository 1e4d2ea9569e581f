"""Uncertainty of an image's labels, in two figures to sort images by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.upsampling import Matrix, Values
from clearclip_core.thread_pools import one_blas_thread


@dataclass(frozen=True)
class Uncertainty:
    """Uncertainty of an image's label map and the effort to correct it.

    The classes are the labels and, together as one more, the contrast words. The probability of a
    class is the softmax over the classes of ``temperature · cosine``, with the cosine of its best
    query. So synonyms do not compete with one another, the winner is that of the label map, and
    the probabilities of a pixel add up to 1.

    Attributes:
        uncertainty: 1 less the mean margin between the two best classes, in [0, 1]; 0 where there
            is only one class. This is the margin of active learning (Scheffer et al., "Active
            Hidden Markov Models for Information Extraction", 2001), averaged over the image.
        effort: expected share of the image's pixels with a wrong label, in [0, 1]: the mean of 1
            less the probability of the label in the label map. It is as good as the model's
            probabilities are calibrated.

    Raises:
        ValueError: a figure outside [0, 1].
    """

    uncertainty: float
    effort: float

    def __post_init__(self) -> None:
        for name, value in (("uncertainty", self.uncertainty), ("effort", self.effort)):
            if not 0 <= value <= 1:
                raise ValueError(f"Expected argument `{name}` to be in [0, 1], but got {value}.")

    @classmethod
    @one_blas_thread()
    def of(cls, scores: Scores, threshold: float | Sequence[float] = 0.0) -> Uncertainty:
        """Estimate both figures at one position for each patch, without the guided filter.

        Args:
            scores: of the image.
            threshold: probability below which a pixel gets no label, see ``Scores.label_map``.
                Such a pixel counts as right with the probability of the contrast words; without
                contrast words it counts as wrong.

        Raises:
            ValueError: neither one threshold nor one for each label.

        >>> import torch
        >>> from clearclip_core import Vocabulary, WindowPlan
        >>> plan = WindowPlan((1, 2), (1, 2), window_px=2, stride_px=2, patch_hw=(1, 1))
        >>> cosines = torch.tensor([[0.75, 0.5], [0.25, 0.5]]).log().reshape(2, 1, 2)
        >>> Uncertainty.of(Scores(cosines, plan, Vocabulary.of(["cat", "dog"]), temperature=1.0))
        Uncertainty(uncertainty=0.75, effort=0.375)
        """
        thresholds = scores.thresholds(threshold)
        y_px, x_px = _patch_positions(scores)
        margin = right = 0.0
        for _, logits in scores.logits_at(y_px, x_px):
            band_margin, band_right = _sums(logits, scores.vocabulary.query_labels, thresholds)
            margin += band_margin
            right += band_right
        positions = len(y_px) * len(x_px)
        return cls(_complement(margin / positions), _complement(right / positions))


def _sums(
    logits: Values, query_labels: Sequence[int], thresholds: npt.NDArray[np.float32]
) -> tuple[float, float]:
    """Sum the margins, and the probabilities that the label is right, over (r, n, Q) logits."""
    labels = np.asarray(query_labels)
    first = np.flatnonzero(np.diff(labels, prepend=-2))  # a class's queries follow one another
    logits -= logits.max(axis=2, keepdims=True)
    classes = np.exp(np.maximum.reduceat(logits, first, axis=2))  # (r, n, C), the best's 1
    winner = labels[first][classes.argmax(axis=2)]
    # The winner's own softmax over all queries is 1 / sum(exp(logits)).
    unlabelled = thresholds[winner] * np.exp(logits).sum(axis=2) > 1
    classes /= classes.sum(axis=2, keepdims=True)
    best = classes.max(axis=2)
    second = np.partition(classes, -2)[..., -2] if len(first) > 1 else 0.0
    contrast = classes[..., -1] if labels[-1] < 0 else 0.0  # contrast words come last
    right = np.where(unlabelled, contrast, best).sum(dtype=np.float64)
    return float((best - second).sum(dtype=np.float64)), float(right)


def _patch_positions(scores: Scores) -> tuple[Matrix, Matrix]:
    """Return rows and columns, in px, of the middles of equal parts of about a patch each."""
    parts = [ceil(side / max(scores.plan.patch_image_px, 1)) for side in scores.plan.image_hw]
    y_px, x_px = (
        (np.arange(count) + 0.5) * side / count - 0.5
        for count, side in zip(parts, scores.plan.image_hw, strict=True)
    )
    return y_px, x_px


def _complement(share: float) -> float:
    """Return 1 less a share, which rounding may have put slightly outside [0, 1]."""
    return min(max(1 - float(share), 0.0), 1.0)
