"""For each label the threshold that would have saved most paint on the corrections so far.

A prediction saves the paint of the pixels that it has right, and costs an erased pixel for each
that it has wrong: of a label with ``T`` true pixels, ``S`` right and ``W`` wrong ones, the saved
paint is ``(S - W) / T``, which is ``1 - (FP + FN) / T``. Pixels less sure than a threshold are not
predicted; so what is kept of a picture are counts of right and wrong pixels by confidence, which
add up over pictures. Islands and holes, which predictions drop and fill, are not looked at.

Only what was judged counts, see `backend.feedback.evidence`. What an annotator kept as it was
predicted is right where the scores agree with it; where they do not, it counts nothing. A pixel is
wrong where it was removed from the label, where something drawn covers it, and where it has no
label on an image on which the label itself was drawn.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from backend.feedback.evidence import ImageEvidence
from backend.feedback.learning.patch_evidence import PatchEvidence
from clearclip_core import BoolMask, Example, Segmentation, Vocabulary
from clearclip_core.adaptation.adaptation import query_names
from clearclip_core.adaptation.examples import UNLABELED
from clearclip_core.segmentation.scores import TEMPERATURE, join_queries

#: Steps of confidence from 0 to 1: a threshold is one of their lower ends.
STEPS: Final = 50

#: Pictures that show a label before it gets a threshold.
FEWEST_PICTURES: Final = 3

#: As predictions compare them: in float16.
_LOWER_ENDS: Final = (np.arange(STEPS) / STEPS).astype(np.float16)

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ThresholdCounts:
    """How right a label was, by confidence; sums over pictures.

    Attributes:
        right: (50,) float64, pixels by confidence that the label has and should have.
        wrong: (50,) float64, pixels that it has and should not have.
        true_px: pixels that it should have.
        shown: keys of the pictures that show it; what several annotators have corrected is one.

    >>> counts = ThresholdCounts.empty()
    >>> counts.right[[20, 40]] = 10, 30
    >>> counts.wrong[20] = 15
    >>> counts = ThresholdCounts(counts.right, counts.wrong, true_px=50, shown=frozenset("abc"))
    >>> counts.best, counts.saved(0.0), counts.saved(0.42)
    (0.42, 0.5, 0.6)
    """

    right: Counts
    wrong: Counts
    true_px: float = 0.0
    shown: frozenset[str] = frozenset()

    @classmethod
    def empty(cls) -> ThresholdCounts:
        """Return the counts of no image: all 0."""
        return cls(np.zeros(STEPS), np.zeros(STEPS))

    def __add__(self, other: ThresholdCounts) -> ThresholdCounts:
        return ThresholdCounts(
            self.right + other.right,
            self.wrong + other.wrong,
            self.true_px + other.true_px,
            self.shown | other.shown,
        )

    @property
    def pictures(self) -> int:
        """How many images show the label."""
        return len(self.shown)

    @property
    def best(self) -> float | None:
        """The best threshold, the lowest of equally good ones; None with too few images."""
        if self.pictures < FEWEST_PICTURES:
            return None
        gains = (self.right - self.wrong)[::-1].cumsum()[::-1]  # of all that is at least as sure
        return int(np.argmax(gains)) / STEPS

    def saved(self, threshold: float) -> float | None:
        """Return the share of the true pixels that needs no painting, at most 1.

        None where there is no true pixel.
        """
        step = round(threshold * STEPS)
        gain = float((self.right - self.wrong)[step:].sum())
        return gain / self.true_px if self.true_px else None

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as databases keep them; these names stay."""
        return {
            "right": self.right.tolist(),
            "wrong": self.wrong.tolist(),
            "true_px": self.true_px,
            "shown": sorted(self.shown),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ThresholdCounts:
        """Read counts that `to_json` has written."""
        right, wrong = np.array(value["right"]), np.array(value["wrong"])
        return cls(right, wrong, value["true_px"], frozenset(value["shown"]))


def measure(
    segmentation: Segmentation, evidence: ImageEvidence, picture: str
) -> dict[str, ThresholdCounts]:
    """Count the right and wrong pixels of each label of an image.

    Args:
        segmentation: of the image, without thresholds.
        evidence: what the annotation says of the image.
        picture: the key of the image, see `clearclip_core.Example.picture_key`.

    Returns:
        Name of the label -> its counts, for labels that are predicted or true somewhere.
    """
    steps = np.searchsorted(_LOWER_ENDS, segmentation.confidence, side="right") - 1  # (H, W)
    nothing = np.zeros(segmentation.label_map.shape, np.bool_)
    drawn, kept = nothing.copy(), nothing.copy()
    for name in evidence.masks:
        drawn |= _or(evidence.drawn(name), nothing)
        kept |= _or(evidence.kept.get(name), nothing)
    measured = {}
    for index, name in enumerate(segmentation.labels):
        ours = segmentation.label_map == index
        true, own = _or(evidence.masks.get(name), nothing), _or(evidence.drawn(name), nothing)
        is_drawn = bool(own.any())
        others = drawn | ~kept if is_drawn else drawn | _or(evidence.removed.get(name), nothing)
        right, wrong = ours & true, ours & ~true & others
        true_px = int(np.count_nonzero(own | right))
        if true_px or ours.any():
            measured[name] = ThresholdCounts(
                np.bincount(steps[right], minlength=STEPS).astype(np.float64),
                np.bincount(steps[wrong], minlength=STEPS).astype(np.float64),
                true_px,
                frozenset([picture] if is_drawn else []),
            )
    return measured


def _or(mask: BoolMask | None, otherwise: BoolMask) -> BoolMask:
    return otherwise if mask is None else mask


def measure_patches(
    example: Example,
    embeddings: torch.Tensor,
    bias: torch.Tensor,
    vocabulary: Vocabulary,
    joined: Collection[str] = (),
) -> dict[str, ThresholdCounts]:
    """Count the right and wrong patches of each label of an example, for scores that have changed.

    As in `clearclip_core.adapt`, labels that the annotator did not know do not compete, and
    patches of labels that the config has no more are wrong for no label.

    Args:
        example: of a corrected image.
        embeddings: (Q, D), as `clearclip_core.Adaptation.apply` returns them.
        bias: (Q,), as `clearclip_core.Adaptation.apply` returns it.
        vocabulary: the labels of today.
        joined: names of the labels whose prompts are joined.

    Returns:
        Name of the label -> its counts, in patches.
    """
    patches = torch.from_numpy(example.patches.astype(np.float32))
    words, offsets = embeddings.to(patches), bias.to(patches)
    cosines = patches @ words.T + offsets
    if joined:
        means = words @ torch.from_numpy(example.mean_feature) + offsets
        rows, vocabulary = join_queries(cosines.T, means, vocabulary, TEMPERATURE, joined)
        cosines = rows.T.contiguous()
    names = query_names(vocabulary)
    cosines[:, [name not in {*example.known, UNLABELED} for name in names]] = -torch.inf
    best = (cosines * TEMPERATURE).softmax(dim=1).max(dim=1)  # (N,)
    owners = np.array(vocabulary.query_labels)[best.indices.numpy()]
    sure = best.values.numpy().astype(np.float16)
    steps = np.searchsorted(_LOWER_ENDS, sure, side="right") - 1
    weights = example.weights.astype(np.float64)
    patchwise = PatchEvidence.of(example, {*names, UNLABELED})
    measured = {}
    for index, label in enumerate(vocabulary.labels):
        if label.name not in example.known:
            continue
        judged = patchwise.judge(label.name)
        ours = weights * (owners == index)
        kept = ours * judged.kept  # and what is kept and not ours counts nothing
        total = float((weights * judged.drawn + kept).sum())
        if total or ours.any():
            measured[label.name] = ThresholdCounts(
                _count(steps, ours * judged.drawn + kept),
                _count(steps, ours * judged.wrong),
                total,
                frozenset([example.picture_key] if judged.drawn.any() else []),
            )
    return measured


def _count(steps: npt.NDArray[np.intp], weights: Counts) -> Counts:
    return np.bincount(steps, weights, STEPS).astype(np.float64)


def add_up(pictures: Iterable[Mapping[str, ThresholdCounts]]) -> dict[str, ThresholdCounts]:
    """Add up the counts of several images; their order does not matter."""
    total: dict[str, ThresholdCounts] = {}
    for picture in pictures:
        for name, counts in picture.items():
            total[name] = total.get(name, ThresholdCounts.empty()) + counts
    return dict(sorted(total.items()))


def best_thresholds(counts: Mapping[str, ThresholdCounts]) -> dict[str, float]:
    """Return name of the label -> its best threshold, for labels where that is above 0."""
    return {name: best for name, each in counts.items() if (best := each.best)}


def counts_from_json(text: str) -> dict[str, ThresholdCounts]:
    """Read the `threshold_counts` of a training example: name of the label -> its counts."""
    return {name: ThresholdCounts.from_json(value) for name, value in json.loads(text).items()}
