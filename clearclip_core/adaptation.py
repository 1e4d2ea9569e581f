"""Scores that follow corrections: what annotators left on some pictures makes the next better.

Nothing is trained. Each corrected picture gives sums over its patches (`Example`, `Evidence`),
which add up and can be taken away again. In closed form they give a Gaussian classifier: a mean
for each label, one shared covariance within labels, shrunk towards a sphere. It is linear in the
features, as the text scores are; so their product as experts is linear too, and all that is exact
about label maps stays exact (`Adaptation`). How much the classifier counts is chosen by corrected
pictures that it has not seen (`adapt`).

Two things keep a few corrections from doing harm. Every label of a picture weighs about the same,
however large it is: else frequent labels drown rare ones. And all is measured from the mean of the
labels' means: so a label without corrections, which gets no term, stays comparable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from clearclip_core.masks import BoolMask
from clearclip_core.scores import TEMPERATURE, DenseFeatures
from clearclip_core.text import Vocabulary

Numbers = npt.NDArray[np.float64]

#: The name of what no label covers.
UNLABELED = ""

#: So many patches of a picture are kept, at most: for the scatter, and to choose strengths by.
SAMPLED = 160

#: Patches of a label at which a picture counts half as evidence for it; many count as 1.
_HALF_PATCHES = 4.0

#: Part of all bytes; another number when they are read in another way.
_FORMAT = 1

#: Corrected pictures that strengths are chosen by, at most, and in how many parts.
_HELD_OUT, _FOLDS = 200, 8


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
        spread = (patches.T * (shares @ counts)) @ patches - (middles.T * counts) @ middles
        moment = spread + (means.T * counts) @ means
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


@dataclass(frozen=True)
class Strengths:
    """How much corrections count.

    Attributes:
        weight: factor on the classifier's logits; 0 leaves the text alone.
        pictures: evidence, in pictures, at which a label has half of that weight.
        shrinkage: in (0, 1], how much of the covariance is a sphere's.
    """

    weight: float
    pictures: float
    shrinkage: float


@dataclass(frozen=True, eq=False)
class Fit:
    """What `adapt` found.

    Attributes:
        adaptation: to score with; None where none is at least as good as the words alone.
        text_iou: IoU of the words alone on held-out corrections, mean over labels, in [0, 1].
        adapted_iou: the same of the adaptation.
        text_ious: the labels' own, by name.
        adapted_ious: the same of the adaptation.
        strengths: those chosen; None without an adaptation.
        pictures: corrected pictures that were learned from.
    """

    adaptation: Adaptation | None
    text_iou: float
    adapted_iou: float
    text_ious: Mapping[str, float]
    adapted_ious: Mapping[str, float]
    strengths: Strengths | None
    pictures: int


#: What `adapt` chooses from.
_CHOICES = tuple(
    Strengths(weight, pictures, shrinkage)
    for weight in (0.1, 0.2, 0.4, 0.7, 1.0)
    for pictures in (1.0, 4.0)
    for shrinkage in (0.05, 0.2)
)


def adapt(
    examples: Iterable[Example],
    embed: Callable[[Sequence[str]], torch.Tensor],
    vocabulary: Vocabulary,
) -> Fit:
    """Join what the words say with what corrections show.

    Strengths are chosen on held-out pictures: each is scored by the sums of the others. So the
    IoUs are of pictures not learned from. Neither the order of the examples nor where they were
    made changes the outcome.

    Args:
        examples: one of each corrected picture.
        embed: prompts -> (Q, D) unit embeddings, as `TextEncoder` does.
        vocabulary: labels of today; what was learned of others is left out.

    Raises:
        ValueError: examples of another model.
    """
    ordered = sorted(examples, key=lambda example: example.digest)
    embeddings = embed(vocabulary.queries).to("cpu", torch.float32)
    width = int(embeddings.shape[-1])
    for example in ordered:
        _check_width(example.width, width)
    total = _total(ordered, width)
    names = query_names(vocabulary)
    seen = ordered[:_HELD_OUT]
    text = _Overlap(vocabulary)
    for example in seen:
        text.add(example, embeddings, torch.zeros(len(names)))
    none = Fit(None, text.mean, text.mean, text.ious, text.ious, None, len(ordered))
    if len(ordered) < 2:
        return none
    overlaps = [_Overlap(vocabulary) for _ in _CHOICES]
    folds = min(_FOLDS, len(seen))
    for fold in range(folds):
        held_out = seen[fold::folds]
        rest = total - _total(held_out, width)
        for strengths, overlap in zip(_CHOICES, overlaps, strict=True):
            made = _join(rest, vocabulary, strengths)
            scored = made.apply(embeddings, vocabulary)
            for example in held_out:
                overlap.add(example, *scored)
    best = max(range(len(_CHOICES)), key=lambda index: overlaps[index].mean)
    if overlaps[best].mean <= text.mean:
        return none
    return Fit(
        _join(total, vocabulary, _CHOICES[best]),
        text.mean,
        overlaps[best].mean,
        text.ious,
        overlaps[best].ious,
        _CHOICES[best],
        len(ordered),
    )


def query_names(vocabulary: Vocabulary) -> tuple[str, ...]:
    """For each query the name of its label, "" for a contrast word."""
    names = [*(label.name for label in vocabulary.labels), UNLABELED]
    return tuple(names[index] for index in vocabulary.query_labels)


def _total(examples: Iterable[Example], width: int) -> Evidence:
    total = Evidence.empty(width)
    for example in examples:
        total += example.evidence
    return total


def _join(evidence: Evidence, vocabulary: Vocabulary, strengths: Strengths) -> Adaptation:
    """The classifier's term for each label of the vocabulary that has evidence."""
    wanted = set(query_names(vocabulary))
    enough = evidence.counts > 1e-6
    rows = [i for i, name in enumerate(evidence.names) if name in wanted and enough[i]]
    names = tuple(evidence.names[i] for i in rows)
    width = evidence.width
    if len(rows) < 2:  # of one class alone nothing tells it from the others
        return Adaptation((), np.zeros((0, width), np.float32), np.zeros(0, np.float32), 0)
    means = evidence.sums[enough] / evidence.counts[enough, None]
    within = evidence.moment - (means.T * evidence.counts[enough]) @ means
    within /= evidence.counts[enough].sum()
    sphere = np.eye(width) * np.trace(within) / width
    covariance = (1 - strengths.shrinkage) * within + strengths.shrinkage * sphere
    counts = evidence.counts[rows]
    labels = evidence.sums[rows] / counts[:, None]  # (K, D)
    middle = labels.mean(axis=0)
    directions = np.linalg.solve(covariance, (labels - middle).T).T
    offsets = -(directions * (labels + middle)).sum(axis=1) / 2
    factors = strengths.weight * counts / (counts + strengths.pictures) / TEMPERATURE
    return Adaptation(
        names,
        (factors[:, None] * directions).astype(np.float32),
        (factors * offsets).astype(np.float32),
        evidence.pictures,
    )


class _Overlap:
    """Intersections and unions of labels over sampled patches, each standing for several."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._labels = [label.name for label in vocabulary.labels]
        self._owners = np.array(vocabulary.query_labels)
        self._sums = np.zeros((3, len(self._labels)))  # both, truth, made

    def add(self, example: Example, embeddings: torch.Tensor, bias: torch.Tensor) -> None:
        patches = torch.from_numpy(example.patches.astype(np.float32))
        owners = self._owners[(patches @ embeddings.T + bias).argmax(dim=1).numpy()]
        for index, name in enumerate(self._labels):
            ours = example.weights * (owners == index)
            self._sums[2, index] += ours.sum()
            if name in example.names:
                true = example.coverage[:, example.names.index(name)].astype(np.float64)
                self._sums[0, index] += (ours * true).sum()
                self._sums[1, index] += (example.weights * true).sum()

    @property
    def ious(self) -> dict[str, float]:
        both, true, made = self._sums
        shares = both / np.maximum(true + made - both, 1e-12)
        return {
            name: float(share)
            for name, share, area in zip(self._labels, shares, true, strict=True)
            if area > 0
        }

    @property
    def mean(self) -> float:
        """Over the labels that were to be found; 0 without one."""
        ious = self.ious
        return sum(ious.values()) / len(ious) if ious else 0.0


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
