"""Scores that follow corrections: what annotators left on some pictures makes the next better.

No network is trained and no score is made from pictures alone. To the words' logits a linear
function of the features is added for each label that was corrected: the one that explains best
what annotators left, and moves the words' logits as little as that takes (`adapt`). This is
multinomial logistic regression whose prior is a Gaussian around the words: a convex problem with
one answer, found in a second or so. How much the words weigh is chosen by corrected pictures that
were not learned from. A label's term grows with its evidence; without any it has none, and its
score stays the words'. All is linear in the features, as the text scores are; so all that is exact
about label maps stays exact (`Adaptation`).

What a corrected picture gives is bounded in size (`Example`): a sample of its patches, and the
means of its labels. So the sums of `Evidence` can be added up, merged and taken away again, and
pictures may come in any order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy.optimize import minimize

from clearclip_core.masks import BoolMask
from clearclip_core.scores import TEMPERATURE, DenseFeatures
from clearclip_core.text import Vocabulary

Numbers = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

#: The name of what no label covers.
UNLABELED = ""

#: So many patches of a picture are kept, at most.
SAMPLED = 160

#: Patches of a label at which a picture counts half as evidence for it; many count as 1.
_HALF_PATCHES = 4.0

#: Part of all bytes; another number when they are read in another way.
_FORMAT = 1

#: What the words may weigh, in pictures; with few corrections only the larger ones are tried:
#: those that all corrections together outweigh by no more than so much.
PRIORS = (3.0, 1.0, 0.3, 0.1)
_LEAST_PRIOR = 1.5

#: Corrected pictures are held out in so many parts.
_FOLDS = 5

#: So many patches are learned from, at most; of many pictures each gives fewer.
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
class Evidence:
    """Sums over corrected pictures: add pictures, merge replicas, take a picture away again.

    In a picture a label with a coverage of n patches has the weight ``n / (n + 4)``, whatever
    its size beyond that. The sums are of weights, of weighted mean features and of weighted mean
    products of features.

    Attributes:
        names: of the labels, sorted; "" stands for what no label covers.
        counts: (K,) float64 sums of weights: about the number of pictures that show a label.
        sums: (K, D) float64 weighted sums of the labels' mean features.
        moment: (D, D) float64 weighted sum of the mean products f fᵀ, over all labels.
        pictures: how many.

    Raises:
        ValueError: the shapes do not fit, or names are not sorted.

    >>> one = Evidence(("sky",), np.ones(1), np.array([[0.6, 0.8]]), np.eye(2), pictures=1)
    >>> (one + one - one).counts
    array([1.])
    """

    names: tuple[str, ...]
    counts: Numbers
    sums: Numbers
    moment: Numbers
    pictures: int

    def __post_init__(self) -> None:
        _check_names(self.names)
        _check_shape("counts", self.counts, (len(self.names),))
        _check_shape("sums", self.sums, (len(self.names), self.width))
        _check_shape("moment", self.moment, (self.width, self.width))

    @classmethod
    def empty(cls, width: int) -> Evidence:
        """Of no picture; `width` is D."""
        return cls((), np.zeros(0), np.zeros((0, width)), np.zeros((width, width)), 0)

    @property
    def width(self) -> int:
        """Numbers in a feature, D."""
        return int(self.moment.shape[0])

    def __add__(self, other: Evidence) -> Evidence:
        return self._plus(other, 1)

    def __sub__(self, other: Evidence) -> Evidence:
        return self._plus(other, -1)

    def whitening(self, shrinkage: float) -> Numbers:
        """Symmetric (D, D) matrix after which features vary alike in all directions within labels.

        The inverse root of one covariance for all labels, around each label's mean, shrunk
        towards a sphere of the same size.

        Args:
            shrinkage: in (0, 1], the sphere's share.
        """
        enough = self.counts > 1e-6
        counts, sums = self.counts[enough], self.sums[enough]
        within = self.moment - _scatter(sums, 1 / counts)
        size = np.trace(within) / self.width
        if size <= 0:
            return np.eye(self.width)
        values, vectors = np.linalg.eigh(within)
        shrunk = (1 - shrinkage) * values.clip(0) + shrinkage * size
        root: Numbers = vectors * np.sqrt(counts.sum() / shrunk) @ vectors.T
        return root

    def _plus(self, other: Evidence, sign: int) -> Evidence:
        if other.width != self.width:
            raise ValueError(
                f"Expected evidence of {self.width} numbers a feature, but got {other.width}."
            )
        names = tuple(sorted({*self.names, *other.names}))
        counts, sums = np.zeros(len(names)), np.zeros((len(names), self.width))
        for each, factor in ((self, 1), (other, sign)):
            rows = [names.index(name) for name in each.names]
            counts[rows] += factor * each.counts
            sums[rows] += factor * each.sums
        moment = self.moment + sign * other.moment
        return Evidence(names, counts, sums, moment, self.pictures + sign * other.pictures)


@dataclass(frozen=True, eq=False)
class Example:
    """What one corrected picture teaches, in a bounded size: some 200 kB for 512 numbers a feature.

    Attributes:
        known: names of the labels that competed on the picture, sorted.
        names: of those that cover something, sorted; "" stands for what no label covers.
        areas: (K,) float32, the labels' coverage in patches.
        means: (K, D) float32, the labels' mean features.
        patches: (N, D) float16, some of the patch features; every label has its share of them.
        coverage: (N, K) float16 in [0, 1], how much of these patches each label covers.
        weights: (N,) float32, for how many patches each of these stands.

    Raises:
        ValueError: the shapes do not fit, or names are not sorted.
    """

    known: tuple[str, ...]
    names: tuple[str, ...]
    areas: npt.NDArray[np.float32]
    means: npt.NDArray[np.float32]
    patches: npt.NDArray[np.float16]
    coverage: npt.NDArray[np.float16]
    weights: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        _check_names(self.known)
        _check_names(self.names)
        labels, sampled = len(self.names), len(self.patches)
        _check_shape("areas", self.areas, (labels,))
        _check_shape("means", self.means, (labels, self.width))
        _check_shape("patches", self.patches, (sampled, self.width))
        _check_shape("coverage", self.coverage, (sampled, labels))
        _check_shape("weights", self.weights, (sampled,))

    @classmethod
    def of(
        cls, features: DenseFeatures, masks: Mapping[str, BoolMask], known: Collection[str]
    ) -> Example:
        """Learn from a picture and the masks that its annotator left.

        Args:
            features: of the picture.
            masks: name of the label -> (H, W) bool, of the picture's own size; may overlap.
            known: names of all labels that the annotator could have used.

        Raises:
            ValueError: a mask of another size, a label without a name, or features with CLS
                features, whose method weighs classes in a way that cannot learn.
        """
        if features.cls is not None:
            raise ValueError(
                "Expected argument `features` to be of a method that scores patches by themselves, "
                "but got windows' CLS features: such a method cannot learn from corrections."
            )
        if UNLABELED in {*masks, *known}:
            raise ValueError("Expected labels to have names, but got an empty one.")
        plan = features.plan
        flat = features.patches.reshape(-1, features.patches.shape[-1])
        patches = flat.detach().to("cpu", torch.float32).numpy()  # (P, D)
        rest = np.ones(plan.image_hw, np.bool_)
        covered: dict[str, npt.NDArray[np.float32]] = {}
        for name, mask in sorted(masks.items()):
            covered[name] = plan.coverage(mask).reshape(-1)
            rest &= ~mask
        covered = {UNLABELED: plan.coverage(rest).reshape(-1)} | covered
        names = tuple(name for name, each in covered.items() if each.any())
        coverage = np.stack([covered[name] for name in names], axis=1)  # (P, K)
        areas = coverage.sum(axis=0, dtype=np.float64)
        means = coverage.T.astype(np.float64) @ patches / areas[:, None]
        some, weights = _sample(coverage)
        return cls(
            tuple(sorted({*known, *masks})),
            names,
            areas.astype(np.float32),
            means.astype(np.float32),
            patches[some].astype(np.float16),
            coverage[some].astype(np.float16),
            weights.astype(np.float32),
        )

    @property
    def width(self) -> int:
        """Numbers in a feature, D."""
        return int(self.patches.shape[1])

    @cached_property
    def digest(self) -> str:
        """Hex digest of the content."""
        return _digest(self._facts, self._arrays)

    @property
    def evidence(self) -> Evidence:
        """The picture's sums; what varies within a label is told by the patches that were kept."""
        areas, means = self.areas.astype(np.float64), self.means.astype(np.float64)
        counts = areas / (areas + _HALF_PATCHES)
        shares = self.coverage.astype(np.float64) * self.weights[:, None]  # (N, K)
        totals = shares.sum(axis=0)
        shares = shares / np.where(totals > 0, totals, 1)
        patches = self.patches.astype(np.float64)
        middles = shares.T @ patches  # (K, D), 0 for a label without a patch
        spread = _scatter(patches, shares @ counts) - _scatter(middles, counts)
        moment = spread + _scatter(means, counts)
        return Evidence(self.names, counts, counts[:, None] * means, moment, 1)

    def to_bytes(self) -> bytes:
        """A safetensors file's bytes."""
        return _pack(self._facts, self._arrays)

    @classmethod
    def from_bytes(cls, data: bytes, width: int | None = None) -> Example:
        """Read what `to_bytes` wrote.

        Args:
            data: the bytes.
            width: D of the model in use, if it is to be checked.

        Raises:
            ValueError: damaged bytes, another format, or another model's features.
        """
        facts, arrays = _unpack(data, "example")
        try:
            made = cls(tuple(facts["known"]), tuple(facts["names"]), **arrays)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"Expected the bytes of an example, but got others ({error})."
            ) from None
        _check_width(made.width, width)
        return made

    @property
    def _facts(self) -> dict[str, Any]:
        return {"kind": "example", "known": list(self.known), "names": list(self.names)}

    @property
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        fields = "areas", "means", "patches", "coverage", "weights"
        return {field: getattr(self, field) for field in fields}


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What corrections add to the text scores: for each label a direction and an offset.

    Attributes:
        names: of the labels that have learned, sorted; "" stands for the contrast words.
        directions: (K, D) float32, added to the embeddings of a label's queries.
        offsets: (K,) float32, added to their cosines.
        pictures: how many were learned from.

    Raises:
        ValueError: the shapes do not fit, or names are not sorted.

    >>> words = Vocabulary.of(["sky", "sea"])
    >>> learned = Adaptation(("sea",), np.ones((1, 2), np.float32), np.ones(1, np.float32), 3)
    >>> embeddings, bias = learned.apply(torch.eye(2), words)
    >>> embeddings.tolist(), bias.tolist()
    ([[1.0, 0.0], [1.0, 2.0]], [0.0, 1.0])
    """

    names: tuple[str, ...]
    directions: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.float32]
    pictures: int

    def __post_init__(self) -> None:
        _check_names(self.names)
        _check_shape("directions", self.directions, (len(self.names), self.width))
        _check_shape("offsets", self.offsets, (len(self.names),))

    @property
    def width(self) -> int:
        """Numbers in a feature, D."""
        return int(self.directions.shape[-1])

    @cached_property
    def digest(self) -> str:
        """Hex digest of the content: equal ones make equal predictions."""
        return _digest(self._facts, self._arrays)

    def apply(
        self, embeddings: torch.Tensor, vocabulary: Vocabulary
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Text embeddings -> what to score features with instead.

        A label's queries all get its term, contrast words that of "". Queries without a term stay
        as they are, bit for bit.

        Args:
            embeddings: (Q, D) of ``vocabulary.queries``.
            vocabulary: the words.

        Raises:
            ValueError: embeddings of another model.

        Returns:
            (Q, D) embeddings, no longer of length 1, and (Q,) what to add to the cosines.
        """
        _check_width(self.width, int(embeddings.shape[-1]))
        row = {name: index for index, name in enumerate(self.names)}
        made, bias = embeddings.clone(), embeddings.new_zeros(len(embeddings))
        for query, name in enumerate(query_names(vocabulary)):
            if name in row:
                made[query] += torch.from_numpy(self.directions[row[name]]).to(made)
                bias[query] = float(self.offsets[row[name]])
        return made, bias

    def to_bytes(self) -> bytes:
        """A safetensors file's bytes."""
        return _pack(self._facts, self._arrays)

    @classmethod
    def from_bytes(cls, data: bytes, width: int | None = None) -> Adaptation:
        """Read what `to_bytes` wrote.

        Args:
            data: the bytes.
            width: D of the model in use, if it is to be checked.

        Raises:
            ValueError: damaged bytes, another format, or made with another model.
        """
        facts, arrays = _unpack(data, "adaptation")
        try:
            made = cls(tuple(facts["names"]), pictures=int(facts["pictures"]), **arrays)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"Expected the bytes of an adaptation, but got others ({error})."
            ) from None
        _check_width(made.width, width)
        return made

    @property
    def _facts(self) -> dict[str, Any]:
        return {"kind": "adaptation", "names": list(self.names), "pictures": self.pictures}

    @property
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"directions": self.directions, "offsets": self.offsets}


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
    learned. Neither the order of the examples nor where they were made changes the outcome.

    Args:
        examples: one of each corrected picture.
        embed: prompts -> (Q, D) unit embeddings, as `TextEncoder` does.
        vocabulary: labels of today; what was learned of others is left out.

    Raises:
        ValueError: examples of another model.
    """
    ordered = sorted(examples, key=lambda example: example.digest)
    embeddings = embed(vocabulary.queries).to("cpu", torch.float32).numpy()
    for example in ordered:
        _check_width(example.width, embeddings.shape[1])
    limit = PATCHES // max(1, len(ordered))
    lessons = [_Lesson.of(example, embeddings, vocabulary, limit) for example in ordered]
    names = _group_names(vocabulary)
    text = _Overlap(names)
    for lesson in lessons:
        text.add(lesson, lesson.text)
    none = Fit(None, text.mean, text.mean, text.ious, text.ious, None, len(ordered))
    priors = [prior for prior in PRIORS if prior * len(ordered) >= _LEAST_PRIOR]
    if len(ordered) < 2:
        return none
    total = _total(ordered, embeddings.shape[1])
    overlaps = [_Overlap(names) for _ in priors]
    folds = min(_FOLDS, len(ordered))
    for fold in range(folds):
        held_out = lessons[fold::folds]
        rest = [lesson for i, lesson in enumerate(lessons) if i % folds != fold]
        evidence = total - _total(ordered[fold::folds], embeddings.shape[1])
        weights = _posterior_modes(rest, evidence, priors)
        for overlap, (directions, offsets) in zip(overlaps, weights, strict=True):
            for lesson in held_out:
                overlap.add(lesson, lesson.text + lesson.patches @ directions.T + offsets)
    best = max(range(len(priors)), key=lambda index: overlaps[index].mean)
    if overlaps[best].mean <= text.mean:
        return none
    *_, (directions, offsets) = _posterior_modes(lessons, total, priors[: best + 1])
    seen = np.any([lesson.truth.any(axis=0) for lesson in lessons], axis=0)
    learned = sorted(np.flatnonzero(seen).tolist(), key=lambda index: names[index])
    made = Adaptation(
        tuple(names[index] for index in learned),
        directions[learned] / np.float32(TEMPERATURE),
        offsets[learned] / np.float32(TEMPERATURE),
        len(ordered),
    )
    chosen = overlaps[best]
    return Fit(made, text.mean, chosen.mean, text.ious, chosen.ious, priors[best], len(ordered))


def query_names(vocabulary: Vocabulary) -> tuple[str, ...]:
    """For each query the name of its label, "" for a contrast word."""
    names = [*(label.name for label in vocabulary.labels), UNLABELED]
    return tuple(names[index] for index in vocabulary.query_labels)


def _group_names(vocabulary: Vocabulary) -> tuple[str, ...]:
    """The labels' names and, where there are contrast words, ""."""
    return tuple(dict.fromkeys(query_names(vocabulary)))


@dataclass(frozen=True, eq=False)
class _Lesson:
    """An example in terms of a vocabulary of G groups of queries: labels, and contrast words.

    Attributes:
        patches: (N, D) float32.
        text: (N, G) float32, the words' logits: of each group the best query's.
        truth: (N, G) float32, what a patch counts for each group; all together 1.
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
        cls, example: Example, embeddings: Floats, vocabulary: Vocabulary, limit: int
    ) -> _Lesson:
        """Make it of `limit` of the example's patches at most."""
        count = len(example.patches)
        kept = min(count, max(1, limit))
        some = ((np.arange(kept) + 0.5) * count / kept).astype(np.intp)
        patches = example.patches[some].astype(np.float32)
        weights = example.weights[some] * np.float32(count / kept)
        names, owners = _group_names(vocabulary), query_names(vocabulary)
        gone = [i for i, name in enumerate(example.names) if name not in {*names, UNLABELED}]
        lost = example.coverage[some][:, gone].astype(np.float32).sum(axis=1)
        weights = weights * (1 - lost).clip(0)  # what is a label of no more tells nothing
        logits = np.float32(TEMPERATURE) * (patches @ embeddings.T)
        text = np.full((kept, len(names)), _ABSENT, np.float32)
        areas = np.zeros_like(text)
        for group, name in enumerate(names):
            queries = [query for query, owner in enumerate(owners) if owner == name]
            if name == UNLABELED or name in example.known:  # others came later: they had no chance
                text[:, group] = logits[:, queries].max(axis=1)
            if name in example.names:
                areas[:, group] = example.coverage[some, example.names.index(name)] * weights
        if not (text > _ABSENT).any():
            weights = np.zeros_like(weights)  # all labels of today came later
        return cls(patches, text, _balanced(areas), areas, weights)


def _balanced(areas: Floats) -> Floats:
    """(N, G) areas -> what they count: a group less than in proportion to its area."""
    totals = areas.sum(axis=0)
    shares = totals**_AREA_POWER * totals / (totals + _HALF_PATCHES)
    if not shares.any():
        return areas
    factors = shares / np.where(totals > 0, totals, 1) / shares.sum()
    made: Floats = areas * factors.astype(np.float32)
    return made


def _total(examples: Iterable[Example], width: int) -> Evidence:
    total = Evidence.empty(width)
    for example in examples:
        total += example.evidence
    return total


def _posterior_modes(
    lessons: Sequence[_Lesson], evidence: Evidence, priors: Sequence[float]
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
        whiten: (D, D), see ``Evidence.whitening``.
    """

    def __init__(self, lessons: Sequence[_Lesson], whiten: Numbers) -> None:
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


class _Overlap:
    """Intersections and unions of labels over sampled patches, each standing for several."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._sums = np.zeros((3, len(names)))  # both, truth, made

    def add(self, lesson: _Lesson, logits: Floats) -> None:
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


def _scatter(rows: Numbers, weights: Numbers) -> Numbers:
    """(N, D) and (N,) -> (D, D) weighted sum of the rows' products with themselves."""
    each = torch.from_numpy(rows)
    made: Numbers = ((each.T * torch.from_numpy(weights)) @ each).numpy()
    return made


def _sample(coverage: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.intp], Numbers]:
    """Patches to keep, (N,) ascending, and for how many each stands.

    Each patch belongs to the label that covers most of it. Labels get places in turn, so that
    small ones are kept whole; a label's patches are taken evenly.
    """
    owners = coverage.argmax(axis=1)
    sizes = np.bincount(owners, minlength=coverage.shape[1])
    places = np.minimum(sizes, SAMPLED // max(1, np.count_nonzero(sizes)))
    for label in np.argsort(sizes, kind="stable"):  # what small ones leave, the larger share
        left = SAMPLED - places.sum()
        places[label] += min(left // 2, sizes[label] - places[label])
    kept, weights = [], []
    for label in np.flatnonzero(places):
        own = np.flatnonzero(owners == label)
        at = (np.arange(places[label]) + 0.5) * len(own) / places[label]
        kept.append(own[at.astype(np.intp)])
        weights.append(np.full(places[label], len(own) / places[label]))
    order = np.argsort(np.concatenate(kept))
    return np.concatenate(kept)[order], np.concatenate(weights)[order]


def _pack(facts: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    known = {**facts, "format": _FORMAT, "digest": _digest(facts, arrays)}
    text = np.frombuffer(json.dumps(known, ensure_ascii=False).encode(), np.uint8)
    packed: bytes = save({"facts": text, **{k: np.ascontiguousarray(v) for k, v in arrays.items()}})
    return packed


def _unpack(data: bytes, kind: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    try:
        arrays = dict(load(data))
        facts = json.loads(arrays.pop("facts").tobytes())
        version, digest = facts.pop("format"), facts.pop("digest")
    except (SafetensorError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"Expected the bytes of an {kind}, but got others ({error}).") from None
    if version != _FORMAT or facts.get("kind") != kind:
        raise ValueError(
            f"Expected the bytes of an {kind} in format {_FORMAT}, but got "
            f"{facts.get('kind')!r} in format {version!r}."
        )
    if digest != _digest(facts, arrays):
        raise ValueError(f"Expected the bytes of an {kind}, but some of them are damaged.")
    return facts, arrays


def _digest(facts: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check_names(names: tuple[str, ...]) -> None:
    if list(names) != sorted(set(names)):
        raise ValueError(f"Expected names to be sorted and all different, but got {names}.")


def _check_shape(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(
            f"Expected argument `{name}` to be of shape {shape}, but got {array.shape}."
        )


def _check_width(width: int, wanted: int | None) -> None:
    if wanted is not None and width != wanted:
        raise ValueError(
            f"Expected features of {wanted} numbers, but got {width}: they are another model's."
        )
