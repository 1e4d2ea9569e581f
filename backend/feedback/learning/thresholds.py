"""For each label the threshold that would have saved most paint on the corrections so far.

A prediction saves the paint of the pixels that it has right, and costs an erased pixel for each
that it has wrong: of a label with ``T`` true pixels, ``S`` right and ``W`` wrong ones, the saved
paint is ``(S - W) / T``, which is ``1 - (FP + FN) / T``. Pixels less sure than a threshold are not
predicted; so what is kept of a picture are counts of right and wrong pixels by confidence, which
add up over pictures. Islands and holes, which predictions drop and fill, are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core import BoolMask, Example, Segmentation, Vocabulary
from clearclip_core.adaptation.adaptation import query_names
from clearclip_core.adaptation.examples import UNLABELED
from clearclip_core.segmentation.scores import TEMPERATURE

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

    >>> sure = ThresholdCounts.empty()
    >>> sure.right[[20, 40]] = 10, 30
    >>> sure.wrong[20] = 15
    >>> sure = ThresholdCounts(sure.right, sure.wrong, true_px=50, shown=frozenset("abc"))
    >>> sure.best, sure.saved(0.0), sure.saved(0.42)
    (0.42, 0.5, 0.6)
    """

    right: Counts
    wrong: Counts
    true_px: float = 0.0
    shown: frozenset[str] = frozenset()

    @classmethod
    def empty(cls) -> ThresholdCounts:
        """Of no picture."""
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
        """How many show it."""
        return len(self.shown)

    @property
    def best(self) -> float | None:
        """The threshold, the lowest of equally good ones; None with too few pictures."""
        if self.pictures < FEWEST_PICTURES:
            return None
        gains = (self.right - self.wrong)[::-1].cumsum()[::-1]  # of all that is at least as sure
        return int(np.argmax(gains)) / STEPS

    def saved(self, threshold: float) -> float | None:
        """The share of the true pixels that needs no painting, 1 or less; None without any."""
        step = round(threshold * STEPS)
        gain = float((self.right - self.wrong)[step:].sum())
        return gain / self.true_px if self.true_px else None

    def to_json(self) -> dict[str, Any]:
        """Its attributes, as `from_json` takes them."""
        return {
            "right": self.right.tolist(),
            "wrong": self.wrong.tolist(),
            "true_px": self.true_px,
            "shown": sorted(self.shown),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ThresholdCounts:
        """One that has been kept as JSON."""
        right, wrong = np.array(value["right"]), np.array(value["wrong"])
        return cls(right, wrong, value["true_px"], frozenset(value["shown"]))


def measure(
    segmentation: Segmentation, masks: Mapping[str, BoolMask], picture: str
) -> dict[str, ThresholdCounts]:
    """How right the labels of a picture are.

    Args:
        segmentation: of the picture, without thresholds.
        masks: name of the label -> (H, W) bool, what it should be; nothing for those left out.
        picture: what it is known by, see `clearclip_core.Example.picture_key`.

    Returns:
        Name of the label -> its counts, for labels that are there or should be.
    """
    steps = np.searchsorted(_LOWER_ENDS, segmentation.confidence, side="right") - 1  # (H, W)
    measured = {}
    for index, name in enumerate(segmentation.labels):
        ours = segmentation.label_map == index
        true = masks.get(name)
        right = ours & true if true is not None else np.zeros_like(ours)
        true_px = 0 if true is None else int(np.count_nonzero(true))
        if true_px or ours.any():
            measured[name] = ThresholdCounts(
                np.bincount(steps[right], minlength=STEPS).astype(np.float64),
                np.bincount(steps[ours & ~right], minlength=STEPS).astype(np.float64),
                true_px,
                frozenset([picture] if true_px else []),
            )
    return measured


def measure_patches(
    example: Example, embeddings: torch.Tensor, bias: torch.Tensor, vocabulary: Vocabulary
) -> dict[str, ThresholdCounts]:
    """The same by the patches that an example has kept, in patches, for scores that have changed.

    As in `clearclip_core.adapt`, labels that the annotator did not know do not compete, and
    patches of labels that are no more are wrong for none.

    Args:
        example: of a corrected picture.
        embeddings: (Q, D), as `clearclip_core.Adaptation.apply` gives them.
        bias: (Q,), likewise.
        vocabulary: the labels of today.
    """
    patches = torch.from_numpy(example.patches.astype(np.float32))
    cosines = patches @ embeddings.to(patches).T + bias.to(patches)
    names = query_names(vocabulary)
    cosines[:, [name not in {*example.known, UNLABELED} for name in names]] = -torch.inf
    gone = [i for i, name in enumerate(example.names) if name not in {*names, UNLABELED}]
    lost = example.coverage[:, gone].astype(np.float64).sum(axis=1)
    best = (cosines * TEMPERATURE).softmax(dim=1).max(dim=1)  # (N,)
    owners = np.array(vocabulary.query_labels)[best.indices.numpy()]
    sure = best.values.numpy().astype(np.float16)
    steps = np.searchsorted(_LOWER_ENDS, sure, side="right") - 1
    weights = example.weights.astype(np.float64)
    measured = {}
    for index, label in enumerate(vocabulary.labels):
        if label.name not in example.known:
            continue
        ours = weights * (owners == index)
        true: Counts = np.zeros(len(weights))
        if label.name in example.names:
            true = example.coverage[:, example.names.index(label.name)].astype(np.float64)
        total = float((weights * true).sum())
        if total or ours.any():
            measured[label.name] = ThresholdCounts(
                _count(steps, ours * true),
                _count(steps, ours * (1 - true - lost).clip(0)),
                total,
                frozenset([example.picture_key] if total else []),
            )
    return measured


def _count(steps: npt.NDArray[np.intp], weights: Counts) -> Counts:
    return np.bincount(steps, weights, STEPS).astype(np.float64)


def add_up(pictures: Iterable[Mapping[str, ThresholdCounts]]) -> dict[str, ThresholdCounts]:
    """The counts of several pictures together; their order does not matter."""
    total: dict[str, ThresholdCounts] = {}
    for picture in pictures:
        for name, paint in picture.items():
            total[name] = total.get(name, ThresholdCounts.empty()) + paint
    return dict(sorted(total.items()))


def best_thresholds(paints: Mapping[str, ThresholdCounts]) -> dict[str, float]:
    """Name of the label -> its threshold, for labels whose best is above 0."""
    return {name: best for name, paint in paints.items() if (best := paint.best)}
