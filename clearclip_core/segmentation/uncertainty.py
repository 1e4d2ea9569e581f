"""How sure a picture's labels are, in two figures to sort pictures by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.upsampling import Matrix


@dataclass(frozen=True)
class Uncertainty:
    """What is open about a picture.

    The classes are the labels and, together as one more, the contrast words. The probability of a
    class is the softmax over the classes of ``temperature · cosine``, where its best query speaks
    for each. So synonyms are no rivals of one another, what wins is what wins in the label map,
    and the probabilities of a pixel add up to 1.

    Attributes:
        uncertainty: 1 less the mean margin between the two best classes, in [0, 1]; 0 where there
            is only one class. This is the margin of active learning (Scheffer et al., "Active
            Hidden Markov Models for Information Extraction", 2001), averaged over the picture.
        effort: expected share of the picture's pixels that are labelled wrongly, in [0, 1]: the
            mean of 1 less the probability of what the label map says. It is as good as the model
            knows itself.

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
    def of(cls, scores: Scores, threshold: float | Sequence[float] = 0.0) -> Uncertainty:
        """The doubt about a picture, from one place a patch, evenly spread; no edges are followed.

        Args:
            scores: of the picture.
            threshold: probability below which a pixel gets no label, see ``Scores.label_map``.
                Such a pixel is right where a contrast word is; without these it never is.

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
        owners = np.asarray(scores.vocabulary.query_labels)
        first = np.flatnonzero(np.diff(owners, prepend=-2))  # a class's queries follow one another
        margin = right = 0.0
        y_px, x_px = _one_a_patch(scores)
        for _, logits in scores.logits_at(y_px, x_px):  # (r, n, Q)
            logits -= logits.max(axis=2, keepdims=True)
            classes = np.exp(np.maximum.reduceat(logits, first, axis=2))  # (r, n, C), the best's 1
            winner = owners[first][classes.argmax(axis=2)]
            # The winner's own softmax over all queries is 1 / sum(exp(logits)).
            blank = thresholds[winner] * np.exp(logits).sum(axis=2) > 1
            classes /= classes.sum(axis=2, keepdims=True)
            best = classes.max(axis=2)
            second = np.partition(classes, -2)[..., -2] if len(first) > 1 else 0.0
            nothing = classes[..., -1] if owners[-1] < 0 else 0.0  # contrast words come last
            margin += (best - second).sum(dtype=np.float64)
            right += np.where(blank, nothing, best).sum(dtype=np.float64)
        places = len(y_px) * len(x_px)
        return cls(_rest(margin / places), _rest(right / places))


def _one_a_patch(scores: Scores) -> tuple[Matrix, Matrix]:
    """Rows and columns of the picture, in px, in the middles of equal parts of about a patch."""
    parts = [ceil(side / max(scores.plan.patch_image_px, 1)) for side in scores.plan.image_hw]
    y_px, x_px = (
        (np.arange(count) + 0.5) * side / count - 0.5
        for count, side in zip(parts, scores.plan.image_hw, strict=True)
    )
    return y_px, x_px


def _rest(share: float) -> float:
    """1 less a share, which may be rounded to a little outside [0, 1]."""
    return min(max(1 - float(share), 0.0), 1.0)
