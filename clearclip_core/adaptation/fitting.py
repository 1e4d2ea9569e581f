"""Scores that follow corrections: what annotators left on some pictures makes the next better.

No network is trained and no score is made from pictures alone. To the words' logits a linear
function of the features is added for each label that was corrected: the one that explains best
what annotators left, and moves the words' logits as little as that takes (`adapt`). This is
multinomial logistic regression whose prior is a Gaussian around the words: a convex problem with
one answer, found in seconds. How much the words weigh is chosen by corrected pictures that
were not learned from. A label's term grows with its evidence; without any it has none, and its
score stays the words'. All is linear in the features, as the text scores are; so all that is exact
about label maps stays exact (`Adaptation`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from clearclip_core.adaptation.adaptation import Adaptation, group_names, query_names
from clearclip_core.adaptation.examples import (
    HALF_PATCHES,
    UNLABELED,
    Example,
    Floats,
    Numbers,
    SufficientStatistics,
)
from clearclip_core.adaptation.serialization import (
    check_width,
)
from clearclip_core.segmentation.scores import TEMPERATURE
from clearclip_core.vocabulary import Vocabulary

#: What the words may weigh, in pictures; with few corrections only the larger ones are tried:
#: those that all corrections together outweigh by no more than so much.
PRIORS = (3.0, 1.0, 0.3, 0.1)
_LEAST_PRIOR = 1.5

#: Corrected pictures are held out in so many parts.
_FOLDS = 5

#: So many patches are learned from, at most; of many examples each gives fewer.
PATCHES = 12_000

#: A label counts by this power of its area in a picture. At 1 frequent labels drown rare ones; at
#: 1/2 a small label beside all that no label covers grows too large.
_AREA_POWER = 0.75

#: The sphere's share of the covariance; and an offset costs a tenth of what a direction does.
_SHRINKAGE = 0.1
_FREE_OFFSETS = 10**0.5

#: The logit of a label that was not there to be chosen.
_ABSENT = np.float32(-1e4)

_STOP = {"maxiter": 200, "ftol": 1e-7, "gtol": 1e-5}


@dataclass(frozen=True, eq=False)
class Fit:
    """What `adapt` found.

    Attributes:
        adaptation: to score with; None where none is better than the words alone.
        text_iou: IoU of the words alone on held-out corrections, mean over labels, in [0, 1].
        adapted_iou: the same of the adaptation.
        text_ious: the labels' own, by name.
        adapted_ious: the same of the adaptation.
        prior: what the words weigh against the corrections, in pictures; None without an
            adaptation.
        pictures: corrected pictures that were learned from.
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
    """Join what the words say with what corrections show.

    How much the words weigh is chosen on held-out pictures: each is scored by what the others
    have taught. So the IoUs are of pictures not learned from; of one picture alone nothing is
    learned. Examples of the same picture are held out together, and share what one counts.
    Neither the order of the examples nor where they were made changes the outcome.

    Args:
        examples: one of each correction.
        embed: prompts -> (Q, D) unit embeddings, as `TextEncoder` does.
        vocabulary: labels of today; what was learned of others is left out.

    Raises:
        ValueError: examples of another model.
    """
    ordered = sorted(examples, key=lambda example: (example.picture_key, example.digest))
    embeddings = embed(vocabulary.queries).to("cpu", torch.float32).numpy()
    for example in ordered:
        check_width(example.width, embeddings.shape[1])
    limit = PATCHES // max(1, len(ordered))
    shared = Counter(example.picture_key for example in ordered)
    lessons = [
        _Batch.of(example, embeddings, vocabulary, limit, shared[example.picture_key])
        for example in ordered
    ]
    text = _Iou(group_names(vocabulary))
    for lesson in lessons:
        text.add(lesson, lesson.text)
    pictures = len(shared)
    none = Fit(None, text.mean, text.mean, text.ious, text.ious, None, pictures)
    priors = [prior for prior in PRIORS if prior * pictures >= _LEAST_PRIOR]
    if pictures < 2:
        return none
    total = _evidence(ordered)
    overlaps = _held_out(ordered, lessons, total, priors, vocabulary)
    best = max(range(len(priors)), key=lambda index: overlaps[index].mean)
    if overlaps[best].mean <= text.mean:
        return none
    *_, terms = _posterior_modes(lessons, total, priors[: best + 1])
    made = _adaptation(lessons, terms, vocabulary, pictures)
    chosen = overlaps[best]
    return Fit(made, text.mean, chosen.mean, text.ious, chosen.ious, priors[best], pictures)


def _held_out(
    examples: Sequence[Example],
    lessons: Sequence[_Batch],
    total: SufficientStatistics,
    priors: Sequence[float],
    vocabulary: Vocabulary,
) -> list[_Iou]:
    """For each prior how right labels are on pictures that were not learned from."""
    overlaps = [_Iou(group_names(vocabulary)) for _ in priors]
    pictures = list(dict.fromkeys(example.picture_key for example in examples))
    folds = min(_FOLDS, len(pictures))
    fold_of = {picture: index % folds for index, picture in enumerate(pictures)}
    pairs = [
        (fold_of[e.picture_key], e, lesson) for e, lesson in zip(examples, lessons, strict=True)
    ]
    for fold in range(folds):
        held_out = [lesson for own, _, lesson in pairs if own == fold]
        rest = [lesson for own, _, lesson in pairs if own != fold]
        evidence = total - _evidence([example for own, example, _ in pairs if own == fold])
        modes = _posterior_modes(rest, evidence, priors)
        for overlap, (directions, offsets) in zip(overlaps, modes, strict=True):
            for lesson in held_out:
                overlap.add(lesson, lesson.text + lesson.patches @ directions.T + offsets)
    return overlaps


def _adaptation(
    lessons: Sequence[_Batch],
    terms: tuple[Floats, Floats],
    vocabulary: Vocabulary,
    pictures: int,
) -> Adaptation:
    """The terms of the groups that have corrections, of cosines instead of logits."""
    names = group_names(vocabulary)
    seen = np.any([lesson.truth.any(axis=0) for lesson in lessons], axis=0)
    rows = sorted(np.flatnonzero(seen).tolist(), key=lambda index: names[index])
    directions, offsets = (term[rows] / np.float32(TEMPERATURE) for term in terms)
    return Adaptation(tuple(names[row] for row in rows), directions, offsets, pictures)


@dataclass(frozen=True, eq=False)
class _Batch:
    """An example in terms of a vocabulary of G groups of queries: labels, and contrast words.

    Attributes:
        patches: (N, D) float32.
        text: (N, G) float32, the words' logits: of each group the best query's.
        truth: (N, G) float32, what a patch counts for each group; of a picture all together 1.
        areas: (N, G) float32, how many patches' worth each of these stands for.
        weights: (N,) float32, for how many patches each stands that can be right or wrong.
    """

    patches: Floats
    text: Floats
    truth: Floats
    areas: Floats
    weights: Floats

    @classmethod
    def of(
        cls, example: Example, embeddings: Floats, vocabulary: Vocabulary, limit: int, shared: int
    ) -> _Batch:
        """Make it of an example.

        Args:
            example: the correction.
            embeddings: (Q, D) of the vocabulary's queries.
            vocabulary: the groups.
            limit: so many of its patches at most.
            shared: examples of its picture, which together count as one.
        """
        count = len(example.patches)
        kept = min(count, max(1, limit))
        some = ((np.arange(kept) + 0.5) * count / kept).astype(np.intp)
        patches = example.patches[some].astype(np.float32)
        weights = example.weights[some] * np.float32(count / kept)
        names, owners = group_names(vocabulary), query_names(vocabulary)
        gone = [i for i, name in enumerate(example.names) if name not in {*names, UNLABELED}]
        lost = example.coverage[some][:, gone].astype(np.float32).sum(axis=1)
        logits = np.float32(TEMPERATURE) * (patches @ embeddings.T)
        text = np.full((kept, len(names)), _ABSENT, np.float32)
        areas = np.zeros_like(text)
        for group, name in enumerate(names):
            queries = [query for query, owner in enumerate(owners) if owner == name]
            if name == UNLABELED or name in example.known:  # others came later: they had no chance
                text[:, group] = logits[:, queries].max(axis=1)
            if name in example.names:
                areas[:, group] = example.coverage[some, example.names.index(name)] * weights
        # What was of a label that is no more tells nothing, nor does what knew no label of today.
        weights = weights * (1 - lost).clip(0) * (text > _ABSENT).any(axis=1)
        truth, share = _balanced(areas), np.float32(1 / shared)
        return cls(patches, text, truth * share, areas * share, weights.astype(np.float32) * share)


def _balanced(areas: Floats) -> Floats:
    """(N, G) areas -> what they count: a group less than in proportion to its area."""
    totals = areas.sum(axis=0)
    shares = totals**_AREA_POWER * totals / (totals + HALF_PATCHES)
    if not shares.any():
        return areas
    factors = shares / np.where(totals > 0, totals, 1) / shares.sum()
    made: Floats = areas * factors.astype(np.float32)
    return made


def _evidence(examples: Sequence[Example]) -> SufficientStatistics:
    return sum((each.evidence for each in examples), SufficientStatistics.empty(examples[0].width))


def _posterior_modes(
    lessons: Sequence[_Batch], evidence: SufficientStatistics, priors: Sequence[float]
) -> Iterator[tuple[Floats, Floats]]:
    """What to add to the groups' logits: for each prior (G, D) directions and (G,) offsets."""
    joined = _Posterior(lessons, evidence.whitening(_SHRINKAGE))
    found = np.zeros(joined.shape)
    for prior in priors:  # from the strongest on, each begins where the last one ended
        made = minimize(
            joined.surprise, found.ravel(), (prior,), "L-BFGS-B", jac=True, options=_STOP
        )
        found = made.x.reshape(joined.shape)
        yield joined.terms(found)


class _Posterior:
    """How well weights explain corrected patches, and how far they leave the words.

    A softmax over the groups' logits, to which a linear function of the whitened features is
    added (multinomial logistic regression, its prior a Gaussian around the words). Convex: there
    is one best answer. Only groups with corrections get a function; the others compete as they
    are.

    Its products are torch's: it shares its threads with the model, NumPy's would come on top.

    Args:
        lessons: corrected pictures.
        whiten: (D, D), see ``SufficientStatistics.whitening``.
    """

    def __init__(self, lessons: Sequence[_Batch], whiten: Numbers) -> None:
        def joined(field: str) -> torch.Tensor:
            return torch.from_numpy(np.concatenate([getattr(each, field) for each in lessons]))

        patches = joined("patches").double()
        truth = joined("truth").double()
        self._text = joined("text").double()
        self._counts = truth.sum(dim=1)
        self._middle = self._counts @ patches / self._counts.sum().clamp(min=1e-12)
        self._whiten = torch.from_numpy(whiten)
        white = (patches - self._middle) @ self._whiten
        self._white = F.pad(white, (0, 1), value=_FREE_OFFSETS)  # (N, D + 1)
        self._learning = truth.any(dim=0)
        self._truth = truth[:, self._learning]
        self._gain = self._truth.T @ self._white
        self._constant = float((truth * self._text).sum())
        self.shape = self._gain.shape[0], self._gain.shape[1]

    def surprise(self, flat: Numbers, prior: float) -> tuple[float, Numbers]:
        """-log of the posterior but for a constant, and its slope, at (L * (D + 1),) weights."""
        weights = torch.from_numpy(flat).reshape(self.shape)
        logits = self._text.clone()
        logits[:, self._learning] += self._white @ weights.T
        sums = torch.logsumexp(logits, dim=1)
        value = self._counts @ sums - (self._gain * weights).sum() - self._constant
        shares = torch.exp(logits[:, self._learning] - sums[:, None]) * self._counts[:, None]
        slope = shares.T @ self._white - self._gain + prior * weights
        value = value + prior / 2 * (weights * weights).sum()
        return float(value), slope.reshape(-1).numpy()

    def terms(self, found: Numbers) -> tuple[Floats, Floats]:
        """Weights of whitened features -> (G, D) directions and (G,) offsets, 0 for the others."""
        weights = torch.from_numpy(found)
        groups, width = len(self._learning), self._white.shape[1] - 1
        directions, offsets = torch.zeros(groups, width).double(), torch.zeros(groups).double()
        directions[self._learning] = weights[:, :-1] @ self._whiten.T
        offsets[self._learning] = weights[:, -1] * _FREE_OFFSETS
        offsets -= directions @ self._middle
        return directions.numpy().astype(np.float32), offsets.numpy().astype(np.float32)


class _Iou:
    """Intersections and unions of labels over sampled patches, each standing for several."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._sums = np.zeros((3, len(names)))  # both, truth, made

    def add(self, lesson: _Batch, logits: Floats) -> None:
        winners = np.eye(len(self._names))[logits.argmax(axis=1)]  # (N, G)
        self._sums += (
            (winners * lesson.areas).sum(axis=0),
            lesson.areas.sum(axis=0),
            lesson.weights @ winners,
        )

    @property
    def ious(self) -> dict[str, float]:
        """Of the labels that were to be found."""
        both, true, made = self._sums
        shares = both / np.maximum(true + made - both, 1e-12)
        each = zip(self._names, shares.tolist(), true, strict=True)
        return {name: share for name, share, area in each if name != UNLABELED and area > 0}

    @property
    def mean(self) -> float:
        """Over the labels that were to be found; 0 without one."""
        ious = self.ious
        return sum(ious.values()) / len(ious) if ious else 0.0
