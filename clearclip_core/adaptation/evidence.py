"""What an annotation says of each patch, and what it leaves open.

Paint says which label a patch shows. A patch without paint says little: the annotator may paint
some labels only, forget small things, or stop halfway. There the words' own answer is the target.
Where an annotator paints labels wherever they are seen, missing paint counts against each label by
Bayes' rule, with the share of the label's patches that this annotator leaves bare as likelihood: it
rules hardly anything out beside borders that are left bare. So what nobody painted moves no label,
and holds those in place that paint elsewhere would move.

Nor is it known where the words are sure of a label that nobody ever paints, and another label is
painted. The label may not be there, or all take its things for another label's: then its own
pictures would show no loss.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from clearclip_core.adaptation.batch import Batch
from clearclip_core.adaptation.contradictions import BoolArray, SetAside
from clearclip_core.adaptation.examples import HALF_PATCHES, UNLABELED, Float32Array
from clearclip_core.adaptation.sufficient_statistics import SufficientStatistics

#: Exponent of a label's area in its weight. At 1, frequent labels outweigh rare ones; at 1/2, the
#: area of a small label grows too large beside the area without a label.
_AREA_POWER = 0.75

#: Shares of a patch: paint on all of it; on none of it; more than that is of several labels.
_ALL = 0.9
_NONE = 0.1
_OVERLAP = 1.05

#: A label that covers less of a patch is not counted there.
_TRACE = 0.05

#: The words are sure of a label from this probability on.
_SURE = 0.5

#: Share of a label's paint on all pictures that is doubted, above which none of it is learned.
_WIDELY = 0.15

#: Completeness: of the patches on which the words are sure of a label and that show nothing else,
#: an annotator has painted at least this share with it, over all pictures and on this one; and the
#: smallest number of such patches that says something.
_COMPLETE = 0.85
_COMPLETE_PICTURE = 0.8
_ENOUGH_PATCHES = 10


@dataclass(frozen=True, eq=False)
class _Habits:
    """How an annotator paints.

    Attributes:
        complete: (G,) bool, labels that are painted wherever they are seen.
        bare: (G,) float32 in (0, 1], probability that a patch of a label is left without paint,
            where the annotator paints at all; 1 for what has no label, and where nothing tells.
    """

    complete: BoolArray
    bare: Float32Array


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of the patches of an example.

    Attributes:
        batch: the example for a vocabulary of G groups; its `weights` are 0 where nothing counts.
        target: (N, G) float32, probability of each group on each patch.
        known: (N,) bool, patches whose target is paint; the words' own answer is that of others.
        cluster: number of the image, see `similarity.cluster`.
        share: weight of the example among those of its cluster, in (0, 1].
        complete: (G,) bool, labels that the annotator paints wherever they are seen, on an image on
            which that was done.
        contested: (N, G) float32 in [0, 1], paint that is set aside, or where the words are sure of
            a label that nobody paints.
        widely_doubted: (G,) bool, labels none of whose paint counts on any image, see
            `_widely_doubted`.
        word_precision: (G,) float32 in (0, 1], how often the words are right where they name a
            group, see `_word_precision`.
    """

    batch: Batch
    target: Float32Array
    known: BoolArray
    cluster: int
    share: float
    complete: BoolArray
    contested: Float32Array
    widely_doubted: BoolArray
    word_precision: Float32Array

    @cached_property
    def weights(self) -> Float32Array:
        """(N,) float32 weights of the patches among those of all images."""
        weights: Float32Array = self.batch.weights * np.float32(self.share)
        return weights

    @cached_property
    def truth(self) -> npt.NDArray[np.intp]:
        """(N,) the most probable group of each patch."""
        groups: npt.NDArray[np.intp] = self.target.argmax(axis=1)
        return groups

    @cached_property
    def certainty(self) -> Float32Array:
        """(N,) float32 in [0, 1]: 1 where the target is paint, else the words' probability.

        That one is taken times how often they are right where they name the group.
        """
        words = self.target.max(axis=1) * self.word_precision[self.truth]
        certain: Float32Array = np.where(self.known, 1, words).astype(np.float32)
        return certain

    @cached_property
    def observations(self) -> Float32Array:
        """(N, G) float32 weights of the patches as observations of the groups.

        Those of paint sum to 1 on an image, and those of other patches to their share of it.
        """
        areas = self.target * self.batch.weights[:, None]
        painted = _balanced(areas * self.known[:, None])
        total = max(float(self.batch.weights.sum()), 1e-9)
        others = areas * ~self.known[:, None] / np.float32(total)
        weights: Float32Array = (painted + others) * np.float32(self.share)
        return weights

    @property
    def statistics(self) -> SufficientStatistics:
        """Sufficient statistics of the patches, each of its most probable group."""
        groups = [group for group in np.unique(self.truth) if self._area(group) > 0]
        counts = np.array([self._area(group) for group in groups])
        shares = np.stack(
            [(self.truth == group) * self.batch.weights for group in groups] or [np.zeros(0)]
        )
        return _statistics(self.batch.patches, groups, counts, shares, self.share)

    def shows(self, groups: int) -> BoolArray:
        """Return (G,) bool: the groups that paint shows on at least two patches."""
        painted = (self.target[self.known] > _SURE).sum(axis=0)
        return np.asarray(painted >= 2) if len(painted) else np.zeros(groups, bool)

    def _area(self, group: int) -> float:
        return float(self.batch.weights[self.truth == group].sum())


def gather_evidence(
    batches: Sequence[Batch],
    clusters: npt.NDArray[np.intp],
    names: Sequence[str],
    aside: Collection[SetAside],
) -> list[Evidence]:
    """Work out what is known of the patches of examples.

    Args:
        batches: n examples for one vocabulary.
        clusters: (n,) numbers of their images, near-duplicates alike.
        names: names of the G groups.
        aside: paint that is not learned from.
    """
    labels = np.array([name != UNLABELED for name in names])
    habits = _habits(batches, labels)
    unused = labels & ~np.any([(batch.painted > 0).any(axis=0) for batch in batches], axis=0)
    sizes = np.bincount(clusters)
    evidence: list[Evidence] = []
    believed = np.ones(len(names), np.float32)
    all_doubted = [_doubted(batch, unused) for batch in batches]
    widely = _widely_doubted(batches, all_doubted)
    for batch, doubted, cluster in zip(batches, all_doubted, clusters.tolist(), strict=True):
        named = {each.label for each in aside if each.example == batch.example}
        own = habits[batch.annotator]
        complete = own.complete & _is_complete(batch, own.complete)
        bare = own.bare if complete.any() else np.ones_like(own.bare)
        without = widely | np.array([name in named for name in names])
        target, known, counts = _targets(batch, without, bare, doubted)
        weighed = replace(batch, weights=batch.weights * counts)
        share = 1 / int(sizes[cluster])
        aside_here = without | doubted[:, None]
        contested = np.where(aside_here, batch.painted, 0).astype(np.float32)
        evidence.append(
            Evidence(weighed, target, known, cluster, share, complete, contested, widely, believed)
        )
    precision = _word_precision(evidence, len(names))
    return [replace(each, word_precision=precision) for each in evidence]


def count_images(evidence: Sequence[Evidence], groups: int) -> npt.NDArray[np.intp]:
    """Count the images whose paint shows each of the groups: (G,), near-duplicates as one."""
    images: list[set[int]] = [set() for _ in range(groups)]
    for each in evidence:
        for group in np.flatnonzero(each.shows(groups)):
            images[group].add(each.cluster)
    return np.array([len(each) for each in images], np.intp)


def _doubted(batch: Batch, unused: BoolArray) -> BoolArray:
    """Return (N,) bool: where the words are sure of a label that nobody paints.

    Where its prediction was removed, somebody has said that it is not there.

    Args:
        batch: the example.
        unused: (G,) bool, labels that are painted on no picture.
    """
    sure = (batch.words > _SURE) & (batch.removed <= _SURE)
    return np.asarray((sure & unused).any(axis=1), np.bool_)


def _widely_doubted(batches: Sequence[Batch], doubted: Sequence[BoolArray]) -> BoolArray:
    """Return (G,) bool: the labels much of whose paint is doubted, so that the rest is too.

    The words are not sure of all that the label nobody paints would cover.

    Args:
        batches: n examples, at least one.
        doubted: n times (N,) bool, patches whose paint says nothing.
    """
    paint = np.sum([batch.painted.sum(axis=0) for batch in batches], axis=0)
    pairs = zip(batches, doubted, strict=True)
    in_doubt = np.sum([batch.painted[each].sum(axis=0) for batch, each in pairs], axis=0)
    return np.asarray(in_doubt > _WIDELY * paint, np.bool_)


def _targets(
    batch: Batch, without: BoolArray, bare: Float32Array, doubted: BoolArray
) -> tuple[Float32Array, BoolArray, BoolArray]:
    """Return (N, G) targets, (N,) whether they are paint, and (N,) whether the patch counts.

    Args:
        batch: the example.
        without: (G,) bool, labels whose paint is set aside.
        bare: (G,) float32, probability that the annotator leaves a patch of a label bare.
        doubted: (N,) bool, patches whose paint says nothing, see `_doubted`.
    """
    paint = np.where(without | (batch.painted < _TRACE), 0, batch.painted)
    total = paint.sum(axis=1)
    whole = (total >= _ALL) & (batch.painted.sum(axis=1) <= _OVERLAP)
    kept = batch.kept > _SURE
    known = whole & ~kept & ~doubted & (batch.covered - total.clip(0, 1) <= _NONE)
    likelihood = np.where((batch.covered < _NONE)[:, None], bare, 1)
    others = _without_removed(batch) * likelihood
    others /= others.sum(axis=1, keepdims=True)
    target = np.where(known[:, None], paint / np.maximum(total, 1e-9)[:, None], others)
    # What stands as predicted says no more than that the words agree, or nothing.
    counts = ~kept | (batch.painted.argmax(axis=1) == batch.predicted)
    return target.astype(np.float32), known, counts


def _word_precision(evidence: Sequence[Evidence], groups: int) -> Float32Array:
    """Return (G,) in (0, 1]: how often the words are right where they name a group, by paint.

    The precision of information retrieval, of patches weighed by the words' probability. Only
    images count on which paint shows the group: on others it may be left out. Who corrects
    predictions paints little but what is wrong, so predictions that stand are right, and those that
    were removed are not. It is the mean of a beta distribution that starts at 1 with the weight of
    `_ENOUGH_PATCHES` patches. So words that nothing is known of are believed, and a model that sees
    poles everywhere is not.
    """
    named = np.full(groups, float(_ENOUGH_PATCHES))
    right = named.copy()
    for each in evidence:
        batch, patches = each.batch, np.arange(len(each.known))
        answer = batch.words.argmax(axis=1)
        stands = (batch.kept > _SURE) & ~each.contested.any(axis=1)
        painted = np.where(each.known[:, None], each.target, batch.painted * stands[:, None])
        shown = (painted > _SURE).sum(axis=0) >= 2
        removed = ~each.known & (batch.removed[patches, answer] > _SURE)
        counted = ((each.known | stands) & shown[answer]) | removed
        sure = each.weights * batch.words.max(axis=1) * counted
        named += np.bincount(answer, sure, groups)
        right += np.bincount(answer, sure * painted[patches, answer], groups)
    precision: Float32Array = (right / named).astype(np.float32)
    return precision


def _without_removed(batch: Batch) -> Float32Array:
    """Return (N, G) probabilities by the words, given that no removed prediction was right."""
    removed = batch.removed > _SURE
    removed &= ~removed.all(axis=1, keepdims=True)
    shares: Float32Array = softmax(np.where(removed, -np.inf, batch.text), axis=1)
    return shares


def _sure(batch: Batch) -> BoolArray:
    """Return (N, G) bool: patches on which the words are sure of a label, painted so or bare."""
    sure = batch.words > _SURE
    return sure & ((batch.painted > _SURE) | (batch.covered < _NONE)[:, None])


def _habits(batches: Sequence[Batch], labels: BoolArray) -> dict[str, _Habits]:
    """Return how each annotator paints.

    The probability of a bare patch is the mean of a beta distribution that starts at what this
    annotator leaves bare of all labels, see `_pooled_rate`, with the weight of `_ENOUGH_PATCHES`
    patches. So missing paint does not speak for a label of which few patches tell.

    Args:
        batches: n examples.
        labels: (G,) bool, the groups that can be painted: all but what has no label.
    """
    habits = {}
    for annotator in {batch.annotator for batch in batches}:
        own = [batch for batch in batches if batch.annotator == annotator]
        sure = [_sure(batch) for batch in own]
        seen = np.sum([each.sum(axis=0) for each in sure], axis=0)
        painted = np.sum(
            [
                (each & (batch.painted > _SURE)).sum(axis=0)
                for each, batch in zip(sure, own, strict=True)
            ],
            axis=0,
        )
        enough = seen >= _ENOUGH_PATCHES
        start = np.where(labels, _pooled_rate(seen - painted, seen, enough & labels), 1)
        bare = (seen - painted + _ENOUGH_PATCHES * start) / (seen + _ENOUGH_PATCHES)
        habits[annotator] = _Habits(enough & (painted >= _COMPLETE * seen), bare.astype(np.float32))
    return habits


def _pooled_rate(
    bare: npt.NDArray[np.integer], seen: npt.NDArray[np.integer], labels: BoolArray
) -> float:
    """Return the share of the labels' patches that is bare, in (0, 1], by the rule of succession.

    Args:
        bare: (G,) numbers of bare patches.
        seen: (G,) numbers of patches.
        labels: (G,) bool, those that count; without any, the rate is 1.
    """
    if not labels.any():
        return 1.0
    return float((bare[labels].sum() + 1) / (seen[labels].sum() + 2))


def _is_complete(batch: Batch, labels: BoolArray) -> bool:
    """Tell whether the labels are painted on this picture wherever they are seen."""
    sure = _sure(batch) & labels
    painted = (sure & (batch.painted > _SURE)).sum()
    return bool(painted >= _COMPLETE_PICTURE * sure.sum())


def _balanced(areas: Float32Array) -> Float32Array:
    """Return (N, G) weights of an image that sum to 1, from its areas in patches.

    The weight of a group grows less than in proportion to its area, see `_AREA_POWER`.
    """
    totals = areas.sum(axis=0)
    shares = totals**_AREA_POWER * totals / (totals + HALF_PATCHES)
    if not shares.any():
        return areas
    factors = shares / np.where(totals > 0, totals, 1) / shares.sum()
    balanced: Float32Array = areas * factors.astype(np.float32)
    return balanced


def _statistics(
    patches: Float32Array,
    groups: Sequence[int],
    counts: npt.NDArray[np.float64],
    shares: npt.NDArray[np.floating],
    share: float,
) -> SufficientStatistics:
    """Sum up patches by group.

    Args:
        patches: (N, D).
        groups: K numbers of groups, ascending.
        counts: (K,) areas in patches.
        shares: (K, N) area of each patch in each group.
        share: weight of the image.
    """
    if not len(groups):
        return SufficientStatistics.empty(patches.shape[1])
    weights = share * counts / (counts + HALF_PATCHES)
    exact = patches.astype(np.float64)
    normal = shares.astype(np.float64) / counts[:, None]
    moment = (exact * (weights @ normal)[:, None]).T @ exact
    names = tuple(f"{group:06d}" for group in groups)
    return SufficientStatistics(names, weights, weights[:, None] * (normal @ exact), moment, 1)
