"""Adapt scores to images that nobody has corrected: self-training, by the regression of `adapt`.

What the words say of most pixels is right, so the masks of the words are taken as if somebody had
drawn them. The regression finds what each label's pixels have in common in this project, with a
prior strong enough that rare labels stay, and each further round begins at its masks. It is the old
idea of self-training (Scudder, 1965); CorrCLIP v2 fills a bank of unlabelled images likewise.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch

from clearclip_core.adaptation.adaptation import Adaptation
from clearclip_core.adaptation.example import Example, Float32Array
from clearclip_core.adaptation.fitting import FEWEST_IMAGES, Judge, Regression
from clearclip_core.adaptation.targets import Targets
from clearclip_core.thread_pools import one_blas_thread
from clearclip_core.vocabulary import TEMPERATURE, Vocabulary

#: Precision of the prior, in images, how often masks are learned from, and how far classes are
#: balanced: a label that nobody shows has little area, and would grow. Chosen on photographs.
_PRECISION = 0.03
_ROUNDS = 3
_BALANCE = -0.12

_LEAST_SHARE = 0.001  # share of an image that a label covers at least where its mask is believed


@dataclass(frozen=True, eq=False)
class UnlabelledFit:
    """The outcome of `adapt_unlabelled`.

    Attributes:
        adaptation: scores with what was learned; None without enough different images.
        images: number of different images, near-duplicates counted once.
        areas: name of a label -> share of all pixels that it wins by the words, and then.
        FEWEST: different images that are learned from, at least.
        MOST: images, at most.
    """

    FEWEST: ClassVar = 20
    MOST: ClassVar = 200

    adaptation: Adaptation | None = None
    images: int = 0
    areas: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def adapt_unlabelled(
    examples: Iterable[Example],
    embed: Callable[[Sequence[str]], torch.Tensor],
    vocabulary: Vocabulary,
) -> UnlabelledFit:
    """Fit an adaptation of the text scores to the masks of the words themselves.

    Nothing says that it is better than the words: somebody has to look. Examples with numbers that
    are not finite are left out. The order of the examples changes nothing.

    Args:
        examples: one for each image, `Example.of` its features without masks; what was drawn on
            them counts for nothing.
        embed: prompts -> (Q, D) unit embeddings, such as `TextEncoder`.
        vocabulary: the labels in use.

    Raises:
        ValueError: examples of another model.
    """
    used = sorted((each for each in examples if each.is_finite), key=lambda each: each.digest)
    with one_blas_thread():
        targets = Targets.of(used, embed(vocabulary.queries), vocabulary, as_drawn=False)
        if targets.images < UnlabelledFit.FEWEST:
            return UnlabelledFit(None, targets.images)
        made, logits = Adaptation((), targets.features[:0], targets.weights[:0], 0), targets.text
        every = np.ones_like(targets.drawn)
        for _ in range(_ROUNDS):
            believed = _believe(targets, logits)
            labels = np.flatnonzero(believed.labels & (believed.shown >= FEWEST_IMAGES))
            regression = Regression(believed, labels)
            weights = regression.mode(every, np.full(len(labels), _PRECISION))
            logits = regression.logits(weights, every)
            made = regression.adaptation(weights, targets.images)
    areas = (_areas(targets, each).tolist() for each in (targets.text, logits))
    pairs = zip(targets.names, zip(*areas, strict=True), strict=True)
    return UnlabelledFit(made, targets.images, {name: area for name, area in pairs if name})


def judge_adaptation(
    adaptation: Adaptation,
    examples: Iterable[Example],
    embed: Callable[[Sequence[str]], torch.Tensor],
    vocabulary: Vocabulary,
) -> float:
    """Measure by how much the mean IoU of corrected pixels is higher than that of the words.

    Each label counts as far as somebody drew it, as in the gate of `adapt`.

    Args:
        adaptation: it has not learned from these examples.
        examples: one for each correction.
    """
    used = [each for each in examples if each.is_finite]
    targets = Targets.of(used, embed(vocabulary.queries), vocabulary)
    if not targets.images:
        return 0.0
    logits = targets.text.copy()
    features = targets.features[:, : adaptation.width]
    terms = zip(adaptation.names, adaptation.directions, adaptation.offsets, strict=True)
    for name, direction, offset in terms:
        if name in targets.names:
            logits[:, targets.names.index(name)] += TEMPERATURE * (features @ direction + offset)
    judge = Judge(targets)
    return float(judge.means(judge.gains(logits))[0])


def _believe(targets: Targets, logits: Float32Array) -> Targets:
    """Take the best label of each pixel for drawn, where it covers enough of its image."""
    best = logits.argmax(axis=1)
    shares = np.zeros((targets.images, len(targets.names)))
    np.add.at(shares, (targets.image, best), targets.weights)
    drawn = targets.labels[best] & (shares[targets.image, best] >= _LEAST_SHARE)
    answer = np.eye(len(targets.names), dtype=np.float32)[best]
    target = np.where(drawn[:, None], answer, targets.target)
    return replace(targets, target=target, drawn=drawn, balance=_BALANCE)


def _areas(targets: Targets, logits: Float32Array) -> Float32Array:
    """Return the (G,) shares of all pixels that each group wins."""
    areas = np.bincount(logits.argmax(axis=1), targets.weights, len(targets.names))
    return (areas / targets.images).astype(np.float32)
