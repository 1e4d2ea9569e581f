"""Whether an adaptation goes live: its IoU on held-out images, label by label, with its bounds.

The images are drawn again with replacement (bootstrap), near-duplicates as one. A bound fits the
number of images: of few images the IoU varies more, and its lower bound is lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearclip_core.adaptation.bootstrap import BEYOND, draw_images
from clearclip_core.adaptation.evidence import Evidence
from clearclip_core.adaptation.examples import Float32Array
from clearclip_core.adaptation.sufficient_statistics import Float64Array

#: A loss of so many times the bound is too much, even if no more than a loss is certain.
_FAR_ABOVE = 1.5


@dataclass(frozen=True, eq=False)
class Comparison:
    """Held-out IoU of one kind of scores against another's, in [0, 1].

    Attributes:
        before: (G,) float64, IoU of each group by the former.
        after: (G,) float64, IoU by the latter.
        gain: mean of the differences over the groups that occur, each by its weight.
        gain_bound: lower bound of `gain`: below it lies one draw in ten.
        lows: (G,) float64, lower bound of each group's difference: below it lies one draw in ten; 0
            for a group that does not occur.
        highs: (G,) float64, upper bound of each group's difference: above it lies one draw in ten.
    """

    before: Float64Array
    after: Float64Array
    gain: float
    gain_bound: float
    lows: Float64Array
    highs: Float64Array


def count_patches(evidence: Evidence, logits: Float32Array) -> Float64Array:
    """Count the patches of an example: (3, G) of right ones, of the truth, and of the logits.

    A painted patch is true for each label as far as that covers it, so thin things count. Where
    nobody painted, the words' own answer is true, as far as it is certain. Where paint is set
    aside, that paint shares the truth with the words' answer, by half each: which of both is right
    is open, but a third is wrong.

    Args:
        evidence: what is known of N patches.
        logits: (N, G).
    """
    patches, predicted = np.arange(len(logits)), logits.argmax(axis=1)
    answer = evidence.contested / 2 / evidence.contested.sum(axis=1, keepdims=True).clip(1)
    answer[patches, evidence.truth] += 1 - answer.sum(axis=1)
    answer *= evidence.certainty[:, None]
    true = np.where(evidence.known[:, None], evidence.target, answer)
    true = true * evidence.weights[:, None]
    chosen = np.zeros_like(true)
    chosen[patches, predicted] = true.sum(axis=1)
    right = np.where(chosen > 0, true, 0)
    return np.stack([each.sum(axis=0, dtype=np.float64) for each in (right, true, chosen)])


def at_prevalence(counts: Sequence[Float64Array], factor: float) -> list[Float64Array]:
    """Return the counts as they were if each label were more frequent.

    The share of a label's patches that is found stays, and so do the others' that are taken for it.

    Args:
        counts: n counts (3, G) of `count_patches`.
        factor: how many times as frequent each label is beside the others.
    """
    more = [each * np.array([[factor], [factor], [1]]) for each in counts]
    for changed, each in zip(more, counts, strict=True):
        changed[2] += (factor - 1) * each[0]
    return more


def compare(
    before: Sequence[Float64Array],
    after: Sequence[Float64Array],
    clusters: npt.NDArray[np.intp],
    weights: npt.NDArray[np.bool_] | Float64Array | None = None,
) -> Comparison:
    """Compare the counts of two kinds of scores on the same examples.

    Args:
        before: n counts (3, G) of `count_patches`.
        after: n counts.
        clusters: (n,) numbers of the images, which are drawn.
        weights: (G,) bool or float, of the groups in the mean that is the gain; None counts all
            alike.
    """
    draws = _draws(clusters)
    old, new = (_ious(np.einsum("bn,nkg->bkg", draws, np.stack(each))) for each in (before, after))
    occurs = np.stack(before)[:, 1].sum(axis=0) > 0
    differences = np.where(occurs, new - old, 0)
    counted = occurs * (np.ones(len(occurs)) if weights is None else weights.astype(np.float64))
    means = differences @ counted / max(float(counted.sum()), 1e-9)
    low, high = np.quantile(differences[1:], (BEYOND, 1 - BEYOND), axis=0)
    bound = float(np.quantile(means[1:], BEYOND))
    return Comparison(old[0], new[0], float(means[0]), bound, low, high)


def falls_on_average(comparison: Comparison, labels: npt.NDArray[np.bool_]) -> bool:
    """Tell whether the mean IoU of some groups falls, each alike.

    Args:
        comparison: of the adaptation with the words.
        labels: (G,) bool, the groups. Those that do not occur change nothing.
    """
    return float((comparison.after - comparison.before)[labels].sum()) < 0


def find_losing(
    comparison: Comparison, label_loss: float, victims: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Return (G,) bool: the groups that lose more than they may.

    A group loses too much if nine draws in ten say so, or if its loss is far above the bound and
    nine draws in ten say that there is a loss. A victim has lost too much before and is left out;
    where others still take its place, it may lose no more than the bound. Paint that has changed
    its meaning counts as true for these others, and hides a part of the victim's loss.

    Args:
        comparison: of the adaptation with the words.
        label_loss: the bound, IoU in [0, 1].
        victims: (G,) bool.
    """
    lost = comparison.before - comparison.after
    limits = label_loss * np.where(victims, 1, _FAR_ABOVE)
    losing: npt.NDArray[np.bool_] = (comparison.highs < -label_loss) | (
        (comparison.highs < 0) & (lost > limits)
    )
    return losing


def why_refused(comparison: Comparison, names: Sequence[str], label_loss: float) -> str:
    """Return why what was learned on top of scores stays away, as a sentence; "" where it counts.

    Args:
        comparison: of scores with it and without.
        names: names of the G groups.
        label_loss: IoU in [0, 1] that a label may lose at most, see `find_losing`.
    """
    losing = find_losing(comparison, label_loss, np.zeros(len(names), np.bool_))
    if losing.any():
        losers = ", ".join(f"“{names[group]}”" for group in np.flatnonzero(losing))
        return (
            f"With it {losers} loses more points of IoU than the bound of {100 * label_loss:.3g}."
        )
    if comparison.gain_bound <= 0:
        return "That it gains on held-out pictures is not certain."
    return ""


def _draws(clusters: npt.NDArray[np.intp]) -> Float64Array:
    """Return (1 + draws, n) weights of examples: all once, then the draws; always the same."""
    count = int(clusters.max()) + 1
    return np.concatenate([np.ones((1, count)), draw_images(count)])[:, clusters]


def _ious(counts: Float64Array) -> Float64Array:
    """Return IoUs (..., G) of counts (..., 3, G)."""
    right, truth, predicted = np.moveaxis(counts, -2, 0)
    ious: Float64Array = right / np.maximum(truth + predicted - right, 1e-12)
    return ious
