"""Adapt scores to images that nobody has corrected: self-training, by the regression of `adapt`.

What the words say of most pixels is right, so the masks of the words are taken as if somebody had
drawn them. The regression finds what each label's pixels have in common in this project, and each
further round begins at its masks. Nothing here tells labels apart whose words hardly do: such ones
learn as one, so their order stays the words', and each keeps most of its area. It is the old idea
of self-training (Scudder, 1965); CorrCLIP v2 fills a bank of unlabelled images likewise.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from clearclip_core.adaptation.adaptation import Adaptation
from clearclip_core.adaptation.example import Example, Float32Array
from clearclip_core.adaptation.fitting import (
    FEWEST_IMAGES,
    LABEL_LOSS,
    UNSURE,
    Float64Array,
    Judge,
    Regression,
    find_losing,
)
from clearclip_core.adaptation.targets import Targets
from clearclip_core.segmentation.upsampling import Indices
from clearclip_core.thread_pools import one_blas_thread
from clearclip_core.vocabulary import TEMPERATURE, Labels, Vocabulary

#: Precision of the prior, in images, and how often masks are learned from; chosen on photographs,
#: as the next two are. Classes are not balanced: one that nobody shows has little area.
_PRECISION = 0.03
_ROUNDS = 3

_ALIKE = 0.5  # correlation of two labels' scores on the images, above which they learn as one
_KEPT = 0.8  # share of its area by the words that a label keeps
_RAISES = 50  # of its constant, at most, until it does
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
    areas: Mapping[str, tuple[float, float]] = field(default_factory=dict, repr=False)


def adapt_unlabelled(
    examples: Iterable[Example],
    embed: Callable[[Sequence[str]], torch.Tensor],
    vocabulary: Labels,
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
    vocabulary = Vocabulary.of(vocabulary)
    used = sorted((each for each in examples if each.is_finite), key=lambda each: each.digest)

    with one_blas_thread():
        targets = Targets.of(used, embed(vocabulary.queries), vocabulary, as_drawn=False)
        if targets.images < UnlabelledFit.FEWEST:
            return UnlabelledFit(None, targets.images)

        group = _alike(targets)
        joint = _joined(targets, group)
        logits, every = joint.text, np.ones_like(targets.drawn)

        for _ in range(_ROUNDS):
            believed = _believe(joint, logits)
            labels = np.flatnonzero(believed.labels & (believed.shown >= FEWEST_IMAGES))
            regression = Regression(believed, labels)
            weights = regression.mode(every, np.full(len(labels), _PRECISION))
            logits = _keep_areas(joint, labels, weights, regression)
        made = regression.adaptation(weights, targets.images)

    names = {name: joint.names[each] for name, each in zip(targets.names, group, strict=True)}
    made = _for_each(made, names)
    logits = _adapted(targets, made)
    areas = (_areas(targets, each).tolist() for each in (targets.text, logits))
    pairs = zip(targets.names, zip(*areas, strict=True), strict=True)
    return UnlabelledFit(made, targets.images, {name: area for name, area in pairs if name})


@dataclass(frozen=True)
class Judgement:
    """What corrections say of an adaptation that has not learned from them.

    Attributes:
        gain: by how much the mean IoU of what was drawn is higher than that of the words; each
            label counts by the share that somebody drew, as in the gate of `adapt`.
        has_lost: whether three draws in four of the images say that it is lower.
        losing: names of the labels that lose more than `LABEL_LOSS` in nine draws in ten, in the
            vocabulary's order.
    """

    gain: float = 0.0
    has_lost: bool = False
    losing: tuple[str, ...] = ()


def judge_adaptation(
    adaptation: Adaptation,
    examples: Iterable[Example],
    embed: Callable[[Sequence[str]], torch.Tensor],
    vocabulary: Labels,
) -> Judgement:
    """Compare an adaptation with the words on corrected pixels.

    What stands as it was predicted counts for neither, so it is fair also where the pictures were
    corrected from the adaptation's own masks.

    Args:
        adaptation: it has not learned from these examples.
        examples: one for each correction.
        embed: prompts -> (Q, D) unit embeddings, such as `TextEncoder`.
        vocabulary: the labels in use.
    """
    vocabulary = Vocabulary.of(vocabulary)
    used = [each for each in examples if each.is_finite]
    targets = Targets.of(used, embed(vocabulary.queries), vocabulary)
    if not targets.images:
        return Judgement()

    judge = Judge(targets)
    gains = judge.gains(_adapted(targets, adaptation))
    means = judge.means(gains)
    losing = np.flatnonzero(find_losing(gains * judge.share, LABEL_LOSS))
    return Judgement(
        gain=float(means[0]),
        has_lost=float(np.quantile(means[1:], 1 - UNSURE)) < 0,
        losing=tuple(targets.names[label] for label in losing),
    )


def _adapted(targets: Targets, adaptation: Adaptation) -> Float32Array:
    """Return the (N, G) logits by an adaptation."""
    logits = targets.text.copy()
    features = targets.features[:, : adaptation.width].astype(np.float32)
    terms = zip(adaptation.names, adaptation.directions, adaptation.offsets, strict=True)
    for name, direction, offset in terms:
        if name in targets.names:
            logits[:, targets.names.index(name)] += TEMPERATURE * (features @ direction + offset)
    return logits


def _alike(targets: Targets) -> Indices:
    """Number the groups, those alike whose logits rise and fall together: (G,) ints from 0.

    What all logits of a pixel have in common decides nothing, and CLIP's have much: it is left out.
    """
    text = targets.text - targets.text.mean(axis=1, keepdims=True)
    text -= text.mean(axis=0)
    text /= np.maximum(np.linalg.norm(text, axis=0), 1e-9)
    alike = (text.T @ text > _ALIKE) & targets.labels & targets.labels[:, None]
    return np.asarray(connected_components(csr_array(alike), directed=False)[1], np.intp)


def _joined(targets: Targets, group: Indices) -> Targets:
    """Make one group of those with one number, named as the first: its logit is their best one."""
    first = np.unique(group, return_index=True)[1]
    text = [targets.text[:, group == each].max(axis=1) for each in range(len(first))]
    target = targets.target @ np.eye(len(first), dtype=np.float32)[group]
    names = tuple(targets.names[each] for each in first)
    return replace(targets, names=names, text=np.stack(text, axis=1), target=target)


def _for_each(made: Adaptation, names: Mapping[str, str]) -> Adaptation:
    """Give each label, by its name, the terms of the one that it learned with."""
    own = tuple(sorted(name for name, joint in names.items() if joint in made.names))
    rows = [made.names.index(names[name]) for name in own]
    return replace(made, names=own, directions=made.directions[rows], offsets=made.offsets[rows])


def _keep_areas(
    targets: Targets, labels: Indices, weights: Float64Array, regression: Regression
) -> Float32Array:
    """Raise constants in `weights` until labels keep most of their area; return the logits."""
    every = np.ones_like(targets.drawn)
    least = _KEPT * _areas(targets, targets.text)[labels]
    for _ in range(_RAISES):
        logits = regression.logits(weights, every)
        area = _areas(targets, logits)[labels]
        if (area >= least).all():
            break
        missing = np.log((least + 1e-9) / (area + 1e-9))
        weights[:, -1] += np.where(area < least, np.clip(missing, 0.05, 1), 0)
    return logits


def _believe(targets: Targets, logits: Float32Array) -> Targets:
    """Take the best label of each pixel for drawn, where it covers enough of its image."""
    best = logits.argmax(axis=1)
    shares = np.zeros((targets.images, len(targets.names)))
    np.add.at(shares, (targets.image, best), targets.weights)
    drawn = targets.labels[best] & (shares[targets.image, best] >= _LEAST_SHARE)
    answer = np.eye(len(targets.names), dtype=np.float32)[best]
    target = np.where(drawn[:, None], answer, targets.target)
    return replace(targets, target=target, drawn=drawn, balance=0)


def _areas(targets: Targets, logits: Float32Array) -> Float32Array:
    """Return the (G,) shares of all pixels that each group wins."""
    areas = np.bincount(logits.argmax(axis=1), targets.weights, len(targets.names))
    return (areas / targets.images).astype(np.float32)
