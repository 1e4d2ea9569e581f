"""Learned presence: how likely a label is in an image at all, by its CLS score.

Corrected images say how often a label is there, and whether that goes with how well its words fit
the image's CLS feature. For each label with enough images of which that is known, a logistic
regression of one variable gives the probability that the label is there. Its logarithm is added to
the label's logit in the whole image: what is rarely there, or not in an image like this one, wins
less. A label of which too little is known stays as it is.

That a label is absent is known only where the annotator had a reason to paint it: on an image that
is painted whole, where a prediction showed the label and was removed, or where the annotator paints
the label wherever it is seen (`clearclip_core.adaptation.evidence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.adaptation.acceptance import Comparison, compare, count_patches, why_refused
from clearclip_core.adaptation.adaptation import Adaptation, query_names
from clearclip_core.adaptation.batch import added_logits
from clearclip_core.adaptation.evidence import Evidence
from clearclip_core.adaptation.examples import UNLABELED, Example
from clearclip_core.adaptation.learned_presence import LearnedPresence, cls_scores
from clearclip_core.adaptation.sufficient_statistics import Float64Array
from clearclip_core.quantities import quantity
from clearclip_core.segmentation.scores import TEMPERATURE
from clearclip_core.vocabulary import Vocabulary

#: Different images of which presence has to be known, for all labels together and for each label.
_FEWEST_IMAGES = 5

#: Share of an image's area that is painted where it counts as painted whole.
_WHOLE = 0.98

#: Share of a patch from which it counts as removed, and as painted.
_MOST = 0.5

#: A label that covers less of each patch is not in an image.
_TRACE = 0.05

#: Smallest probability that is left where absent labels are ruled out.
_POSSIBLE = 1e-3

#: Text logits of a label that could not be chosen when an image was corrected are below this.
_NO_CHANCE = -9e3

#: Images that the prior counts for: half of them show the label.
_PRIOR_IMAGES = 1.0

#: Precision of the prior of a slope, per standard deviation of the CLS scores.
_SLOPE_PRECISION = 1.0

#: Least standard deviation of CLS scores, far above their rounding errors.
_LEAST_SPREAD = 1e-5

#: Steps of Newton's method; the problem is convex and has two unknowns.
_STEPS = 20

_FOLDS = 5


class PresenceFit(NamedTuple):
    """What came of learning presence.

    Attributes:
        presence: what was learned; None where it was refused.
        comparison: IoU with it against without, on images that it was not learned from; None where
            there are too few images.
        refused: why it was refused, as a sentence; "" where it was not.
    """

    presence: LearnedPresence | None
    comparison: Comparison | None
    refused: str = ""


@dataclass(frozen=True, eq=False)
class Presences:
    """Which labels corrected images show, with their CLS scores.

    Attributes:
        shown: (n, G) float64, 1 where a group's label is there, 0 where it is not, nan where nobody
            knows.
        scores: (n, G) float64, CLS scores: the cosine of each group's best query.
        clusters: (n,) numbers of the images, near-duplicates alike.
    """

    shown: Float64Array
    scores: Float64Array
    clusters: npt.NDArray[np.intp]

    def some(self, rows: npt.NDArray[np.bool_]) -> Presences:
        """Return those of some images."""
        return Presences(self.shown[rows], self.scores[rows], self.clusters[rows])


def learn_presence(
    examples: Sequence[Example],
    evidence: Sequence[Evidence],
    embeddings: torch.Tensor,
    vocabulary: Vocabulary,
    names: Sequence[str],
    adaptation: Adaptation | None,
    label_loss: float,
) -> PresenceFit:
    """Learn presence from corrected images, and compare scores with and without it.

    It is refused unless held-out images gain beyond chance and no label loses more than it may, by
    the rules of `clearclip_core.adaptation.acceptance`.

    Args:
        examples: n training examples.
        evidence: what each of them says.
        embeddings: (Q, D) unit text embeddings of the vocabulary's queries.
        vocabulary: the words.
        names: names of the G groups.
        adaptation: what is added to scores beside presence; None for nothing.
        label_loss: IoU in [0, 1] that a label may lose at most.
    """
    rows = [row for row, example in enumerate(examples) if example.cls is not None]
    clusters = np.array([evidence[row].cluster for row in rows], np.intp)
    images = len(np.unique(clusters))
    if images < _FEWEST_IMAGES:
        reason = (
            f"It can be learned from {quantity(images, 'different picture')} with a CLS feature, "
            f"and needs {_FEWEST_IMAGES}."
        )
        return PresenceFit(None, None, reason)
    own = [evidence[row] for row in rows]
    owners = query_names(vocabulary)
    by_name = [
        cls_scores(embeddings, torch.from_numpy(np.asarray(examples[row].cls)), owners)
        for row in rows
    ]
    scores = np.array([[each[name] for name in names] for each in by_name])
    states = [shown(each, names) for each in own]
    own = [_without_absent(each, state) for each, state in zip(own, states, strict=True)]
    known = Presences(np.stack(states), scores, clusters)
    before, after = [], []
    numbers = np.unique(clusters, return_inverse=True)[1]
    folds = numbers % min(_FOLDS, images)
    logits = [each.batch.text + added_logits(each.batch, adaptation, names) for each in own]
    for fold in range(folds.max() + 1):
        learned = fit_presence(known.some(folds != fold), names)
        for row in np.flatnonzero(folds == fold):
            offsets = learned.of(by_name[row], names)
            shifted = logits[row] + np.float32(TEMPERATURE) * offsets.astype(np.float32)
            before.append((row, count_patches(own[row], logits[row])))
            after.append((row, count_patches(own[row], shifted)))
    counts = [[each for _, each in sorted(pairs, key=lambda p: p[0])] for pairs in (before, after)]
    comparison = compare(counts[0], counts[1], numbers)
    learned = fit_presence(known, names)
    reason = "Of no label it is known on enough pictures whether it is there."
    if learned.names:
        reason = why_refused(comparison, names, label_loss)
    if not reason:
        return PresenceFit(learned, comparison)
    return PresenceFit(None, comparison, reason)


def shown(evidence: Evidence, names: Sequence[str]) -> Float64Array:
    """Return (G,): 1 for labels that an example shows, 0 for those it does not; nan: unknown."""
    batch = evidence.batch
    painted = evidence.shows(len(names))
    traces = (batch.painted > _TRACE).any(axis=0)
    removed = (batch.removed > _MOST).any(axis=0)
    area = batch.weights > 0
    total = float(batch.weights.sum())
    covered = float(batch.weights[area & (batch.covered > _MOST)].sum())
    is_whole = total > 0 and covered >= _WHOLE * total
    absent = ~traces & (removed | evidence.complete | is_whole)
    state = np.where(painted, 1.0, np.where(absent, 0.0, np.nan))
    could_be_chosen = (batch.text > _NO_CHANCE).any(axis=0)
    state[~could_be_chosen | np.array([name == UNLABELED for name in names])] = np.nan
    return state


def _without_absent(evidence: Evidence, state: Float64Array) -> Evidence:
    """Return evidence in which labels that are known to be absent are the truth nowhere.

    Where nobody painted, the words' own answer is the target, which may name such labels.
    """
    left = np.where(state == 0, 0, evidence.target)
    total = left.sum(axis=1, keepdims=True)
    target = np.where(total > _POSSIBLE, left / np.maximum(total, _POSSIBLE), evidence.target)
    return replace(evidence, target=target.astype(np.float32))


def fit_presence(known: Presences, names: Sequence[str]) -> LearnedPresence:
    """Fit the presence of each label with enough images of which that is known.

    Near-duplicates count as one image.

    Args:
        known: which labels n images show.
        names: names of the G groups.
    """
    fitted: dict[str, tuple[float, float]] = {}
    for group, name in enumerate(names):
        rows = ~np.isnan(known.shown[:, group])
        clusters = known.clusters[rows]
        if name != UNLABELED and len(np.unique(clusters)) >= _FEWEST_IMAGES:
            sizes = np.bincount(clusters)[clusters]
            shown_there, score = known.shown[rows, group], known.scores[rows, group]
            fitted[name] = logistic(score, shown_there, 1 / sizes)
    ordered = tuple(sorted(fitted))
    numbers = np.array([fitted[name] for name in ordered], np.float32).reshape(-1, 2)
    return LearnedPresence(ordered, numbers[:, 0].copy(), numbers[:, 1].copy())


def logistic(x: Float64Array, y: Float64Array, weights: Float64Array) -> tuple[float, float]:
    """Fit ``P(y = 1) = sigmoid(a + s x)`` by penalised maximum likelihood.

    The prior counts as one image at the mean of x of which half shows the label, and holds the
    slope near 0 where images are few.

    Args:
        x: (n,) CLS scores.
        y: (n,) 0 or 1.
        weights: (n,) weight of each image.

    Returns:
        a and s.
    """
    mean = float(np.average(x, weights=weights))
    spread = float(np.sqrt(np.average((x - mean) ** 2, weights=weights)))
    if spread < _LEAST_SPREAD:  # scores that are all alike tell nothing
        spread = 1.0
    design = np.stack([np.ones(len(x) + 2), np.append((x - mean) / spread, [0, 0])], axis=1)
    target = np.append(y, [0, 1])
    counts = np.append(weights, [_PRIOR_IMAGES / 2, _PRIOR_IMAGES / 2])
    precision = np.diag([0.0, _SLOPE_PRECISION])
    solution = np.zeros(2)
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-design @ solution))
        gradient = design.T @ (counts * (chance - target)) + precision @ solution
        curvature = (design.T * (counts * chance * (1 - chance))) @ design + precision
        solution -= np.linalg.solve(curvature, gradient)
    slope = float(solution[1]) / spread
    return float(solution[0]) - slope * mean, slope
