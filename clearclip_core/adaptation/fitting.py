"""Fit scores to corrected images: text logits plus a linear function of the features a label.

No network is trained, and no score is made from images alone. For each label that was corrected,
a linear function of the features is added to its text logit. The functions are the mode of the
posterior of a multinomial logistic regression, whose prior is a Gaussian around the text logits:
a convex problem with one solution, found in seconds. The strength of the prior is chosen by
cross-validation over corrected images. A label without corrections keeps its text score. All terms
are linear in the features, as the text scores are, so label maps stay exact (`Adaptation`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clearclip_core.adaptation.adaptation import Adaptation, group_names
from clearclip_core.adaptation.batch import Batch
from clearclip_core.adaptation.examples import UNLABELED, Example, Float32Array
from clearclip_core.adaptation.posterior import posterior_modes
from clearclip_core.adaptation.serialization import check_width
from clearclip_core.adaptation.sufficient_statistics import SufficientStatistics
from clearclip_core.segmentation.scores import TEMPERATURE
from clearclip_core.vocabulary import Vocabulary

#: Precisions of the prior, in images, the largest first. With few images only the larger ones are
#: tried: those whose product with the number of images is at least `_LEAST_PRIOR`.
PRIORS = (3.0, 1.0, 0.3, 0.1)
_LEAST_PRIOR = 1.5

#: Folds of the cross-validation.
_FOLDS = 5

#: Limit of the patches of all examples together; of many examples, each gives fewer.
PATCHES = 12_000


@dataclass(frozen=True, eq=False)
class Fit:
    """The outcome of `adapt`.

    Attributes:
        adaptation: scores with corrections; None where none is better than the text scores.
        text_iou: IoU of the text scores on held-out corrections, mean over labels, in [0, 1].
        adapted_iou: IoU of the adapted scores on held-out corrections, mean over labels.
        text_ious: IoU of the text scores by label.
        adapted_ious: IoU of the adapted scores by label.
        prior: precision of the prior, in images; None without an adaptation.
        pictures: number of corrected images.
    """

    adaptation: Adaptation | None
    text_iou: float
    adapted_iou: float
    text_ious: Mapping[str, float]
    adapted_ious: Mapping[str, float]
    prior: float | None
    pictures: int


def adapt(
    examples: Iterable[Example],
    embed: Callable[[Sequence[str]], torch.Tensor],
    vocabulary: Vocabulary,
) -> Fit:
    """Fit an adaptation of the text scores to training examples.

    The strength of the prior is chosen by cross-validation: each image is scored by an adaptation
    to the others, so all IoUs are of images that were not learned from. One image alone gives no
    adaptation. Examples of one image are held out together and share its weight. Examples with
    numbers that are not finite are left out and not counted. The outcome depends neither on the
    order of the examples nor on the machine that made them.

    Args:
        examples: one for each correction.
        embed: prompts -> (Q, D) unit embeddings, such as `TextEncoder`.
        vocabulary: the labels in use; corrections of other labels are left out.

    Raises:
        ValueError: examples of another model.
    """
    finite = (example for example in examples if example.is_finite)
    ordered = sorted(finite, key=lambda example: (example.picture_key, example.digest))
    images = Counter(example.picture_key for example in ordered)
    batches = _batches(ordered, images, embed, vocabulary)
    text = _Iou(group_names(vocabulary))
    for batch in batches:
        text.add(batch, batch.text)
    unadapted = Fit(None, text.mean, text.mean, text.ious, text.ious, None, len(images))
    if len(images) < 2:
        return unadapted
    total = _total_statistics(ordered)
    priors = [prior for prior in PRIORS if prior * len(images) >= _LEAST_PRIOR]
    ious = _cross_validate(ordered, batches, total, priors, vocabulary)
    best = max(range(len(priors)), key=lambda index: ious[index].mean)
    if ious[best].mean <= text.mean:
        return unadapted
    *_, terms = posterior_modes(batches, total, priors[: best + 1])
    adaptation = _adaptation(batches, terms, vocabulary, len(images))
    chosen = ious[best]
    return Fit(
        adaptation, text.mean, chosen.mean, text.ious, chosen.ious, priors[best], len(images)
    )


def _batches(
    examples: Sequence[Example],
    images: Mapping[str, int],
    embed: Callable[[Sequence[str]], torch.Tensor],
    vocabulary: Vocabulary,
) -> list[Batch]:
    """Make the batch of each example; `images` counts the examples of each image."""
    embeddings = embed(vocabulary.queries).to("cpu", torch.float32).numpy()
    for example in examples:
        check_width(example.width, embeddings.shape[1])
    limit = PATCHES // max(1, len(examples))
    return [
        Batch.of(example, embeddings, vocabulary, limit, images[example.picture_key])
        for example in examples
    ]


def _cross_validate(
    examples: Sequence[Example],
    batches: Sequence[Batch],
    total: SufficientStatistics,
    priors: Sequence[float],
    vocabulary: Vocabulary,
) -> list[_Iou]:
    """Measure the IoU on held-out images for each prior."""
    ious = [_Iou(group_names(vocabulary)) for _ in priors]
    for held_out_examples, held_out, training in _folds(examples, batches):
        statistics = total - _total_statistics(held_out_examples)
        modes = posterior_modes(training, statistics, priors)
        for iou, (directions, offsets) in zip(ious, modes, strict=True):
            for batch in held_out:
                iou.add(batch, batch.text + batch.patches @ directions.T + offsets)
    return ious


def _folds(
    examples: Sequence[Example], batches: Sequence[Batch]
) -> Iterator[tuple[list[Example], list[Batch], list[Batch]]]:
    """Yield held-out examples, their batches and the training batches; images are not divided."""
    images = list(dict.fromkeys(example.picture_key for example in examples))
    folds = min(_FOLDS, len(images))
    fold_of = {image: index % folds for index, image in enumerate(images)}
    pairs = [
        (fold_of[example.picture_key], example, batch)
        for example, batch in zip(examples, batches, strict=True)
    ]
    for fold in range(folds):
        yield (
            [example for own, example, _ in pairs if own == fold],
            [batch for own, _, batch in pairs if own == fold],
            [batch for own, _, batch in pairs if own != fold],
        )


def _adaptation(
    batches: Sequence[Batch],
    terms: tuple[Float32Array, Float32Array],
    vocabulary: Vocabulary,
    pictures: int,
) -> Adaptation:
    """Make the adaptation of the groups with corrections; terms of logits become cosines'."""
    names = group_names(vocabulary)
    seen = np.any([batch.truth.any(axis=0) for batch in batches], axis=0)
    rows = sorted(np.flatnonzero(seen).tolist(), key=lambda index: names[index])
    directions, offsets = (term[rows] / np.float32(TEMPERATURE) for term in terms)
    return Adaptation(tuple(names[row] for row in rows), directions, offsets, pictures)


def _total_statistics(examples: Sequence[Example]) -> SufficientStatistics:
    empty = SufficientStatistics.empty(examples[0].width)
    return sum((each.statistics for each in examples), empty)


class _Iou:
    """Intersections and unions of labels, accumulated over sampled patches.

    Args:
        names: names of the groups, in the order of the logits.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._sums = np.zeros((3, len(names)))  # intersection, truth, prediction

    def add(self, batch: Batch, logits: Float32Array) -> None:
        """Count the patches of a batch by their largest logit, (N, G)."""
        predicted = np.eye(len(self._names))[logits.argmax(axis=1)]  # (N, G)
        self._sums += (
            (predicted * batch.areas).sum(axis=0),
            batch.areas.sum(axis=0),
            batch.weights @ predicted,
        )

    @property
    def ious(self) -> dict[str, float]:
        """IoU by label, of labels with an area."""
        intersection, truth, predicted = self._sums
        shares = intersection / np.maximum(truth + predicted - intersection, 1e-12)
        each = zip(self._names, shares.tolist(), truth, strict=True)
        return {name: share for name, share, area in each if name != UNLABELED and area > 0}

    @property
    def mean(self) -> float:
        """Mean IoU over labels with an area; 0 without one."""
        ious = self.ious
        return sum(ious.values()) / len(ious) if ious else 0.0
