"""What corrected pictures teach, in a bounded size: sums that add up, and a sample of patches.

Both are made once a picture. Pictures may come in any order and on several machines; what is
deleted or changed is taken away again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.adaptation.serialization import (
    check_names,
    check_shape,
    check_width,
    digest_of,
    to_safetensors,
    unpack_as,
)
from clearclip_core.segmentation.dense_features import DenseFeatures
from clearclip_core.segmentation.masks import BoolMask

Numbers = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

#: The name of what no label covers.
UNLABELED = ""

#: So many numbers of a picture's patches are kept, at most: 192 kB.
SAMPLED = 98_304

#: Patches of a label at which a picture counts half as evidence for it; many count as 1.
HALF_PATCHES = 4.0


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
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

    >>> one = SufficientStatistics(("sky",), np.ones(1), np.array([[0.6, 0.8]]), np.eye(2), pictures=1)
    >>> (one + one - one).counts
    array([1.])
    """

    names: tuple[str, ...]
    counts: Numbers
    sums: Numbers
    moment: Numbers
    pictures: int

    def __post_init__(self) -> None:
        check_names(self.names)
        check_shape("counts", self.counts, (len(self.names),))
        check_shape("sums", self.sums, (len(self.names), self.width))
        check_shape("moment", self.moment, (self.width, self.width))

    @classmethod
    def empty(cls, width: int) -> SufficientStatistics:
        """Of no picture; `width` is D."""
        return cls((), np.zeros(0), np.zeros((0, width)), np.zeros((width, width)), 0)

    @property
    def width(self) -> int:
        """Numbers in a feature, D."""
        return int(self.moment.shape[0])

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        return self._plus(other, 1)

    def __sub__(self, other: SufficientStatistics) -> SufficientStatistics:
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
        values, vectors = (each.numpy() for each in torch.linalg.eigh(torch.from_numpy(within)))
        shrunk = (1 - shrinkage) * values.clip(0) + shrinkage * size
        root: Numbers = vectors * np.sqrt(counts.sum() / shrunk) @ vectors.T
        return root

    def _plus(self, other: SufficientStatistics, sign: int) -> SufficientStatistics:
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
        return SufficientStatistics(
            names, counts, sums, moment, self.pictures + sign * other.pictures
        )


@dataclass(frozen=True, eq=False)
class Example:
    """What one annotator's correction of a picture teaches, in a bounded size: some 200 kB.

    Attributes:
        known: names of the labels that competed on the picture, sorted.
        names: of those that cover something, sorted; "" stands for what no label covers.
        areas: (K,) float32, the labels' coverage in patches.
        means: (K, D) float32, the labels' mean features.
        patches: (N, D) float16, some of the patch features; every label has its share of them.
        coverage: (N, K) float16 in [0, 1], how much of these patches each label covers.
        weights: (N,) float32, for how many patches each of these stands.
        picture: what the picture is known by, the same for all who have corrected it; without it
            the example counts as the only one of its picture.

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
    picture: str = ""

    def __post_init__(self) -> None:
        check_names(self.known)
        check_names(self.names)
        labels, sampled = len(self.names), len(self.patches)
        check_shape("areas", self.areas, (labels,))
        check_shape("means", self.means, (labels, self.width))
        check_shape("patches", self.patches, (sampled, self.width))
        check_shape("coverage", self.coverage, (sampled, labels))
        check_shape("weights", self.weights, (sampled,))

    @classmethod
    def of(
        cls,
        features: DenseFeatures,
        masks: Mapping[str, BoolMask],
        known: Collection[str],
        picture: str = "",
    ) -> Example:
        """Learn from a picture and the masks that its annotator left.

        Args:
            features: of the picture.
            masks: name of the label -> (H, W) bool, of the picture's own size; may overlap.
            known: names of all labels that the annotator could have used.
            picture: what the picture is known by, such as ``PreparedImage.digest``.

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
        for name in sorted(masks):
            mask = masks[name]
            covered[name] = plan.coverage(mask).reshape(-1)
            rest &= ~mask
            del mask  # before the next is made, where `masks` makes them one by one
        covered = {UNLABELED: plan.coverage(rest).reshape(-1)} | covered
        names = tuple(name for name, each in covered.items() if each.any())
        coverage = np.stack([covered[name] for name in names], axis=1)  # (P, K)
        areas = coverage.sum(axis=0, dtype=np.float64)
        means = coverage.T.astype(np.float64) @ patches / areas[:, None]
        some, weights = _sample(coverage, max(1, SAMPLED // patches.shape[1]))
        return cls(
            tuple(sorted({*known, *masks})),
            names,
            areas.astype(np.float32),
            means.astype(np.float32),
            patches[some].astype(np.float16),
            coverage[some].astype(np.float16),
            weights.astype(np.float32),
            picture,
        )

    @property
    def width(self) -> int:
        """Numbers in a feature, D."""
        return int(self.patches.shape[1])

    @cached_property
    def digest(self) -> str:
        """Hex digest of the content."""
        return digest_of(self._facts, self._arrays)

    @property
    def picture_key(self) -> str:
        """The same for all examples of a picture, and for no others."""
        return self.picture or self.digest

    @property
    def evidence(self) -> SufficientStatistics:
        """The picture's sums; what varies within a label is told by the patches that were kept."""
        areas, means = self.areas.astype(np.float64), self.means.astype(np.float64)
        counts = areas / (areas + HALF_PATCHES)
        shares = self.coverage.astype(np.float64) * self.weights[:, None]  # (N, K)
        totals = shares.sum(axis=0)
        shares = shares / np.where(totals > 0, totals, 1)
        patches = self.patches.astype(np.float64)
        middles = shares.T @ patches  # (K, D), 0 for a label without a patch
        spread = _scatter(patches, shares @ counts) - _scatter(middles, counts)
        moment = spread + _scatter(means, counts)
        return SufficientStatistics(self.names, counts, counts[:, None] * means, moment, 1)

    def to_bytes(self) -> bytes:
        """A safetensors file's bytes."""
        return to_safetensors("example", self._facts, self._arrays)

    @classmethod
    def from_bytes(cls, data: bytes, width: int | None = None) -> Example:
        """Read what `to_bytes` wrote.

        Args:
            data: the bytes.
            width: D of the model in use, if it is to be checked.

        Raises:
            ValueError: damaged bytes, another format, or another model's features.
        """
        made = unpack_as(
            data,
            "example",
            ("areas", "means", "patches", "coverage", "weights"),
            lambda facts, arrays: cls(
                tuple(facts["known"]),
                tuple(facts["names"]),
                arrays["areas"],
                arrays["means"],
                arrays["patches"],
                arrays["coverage"],
                arrays["weights"],
                str(facts.get("picture", "")),
            ),
        )
        check_width(made.width, width)
        return made

    @property
    def _facts(self) -> dict[str, Any]:
        facts = {"known": list(self.known), "names": list(self.names)}
        return facts | ({"picture": self.picture} if self.picture else {})

    @property
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {
            "areas": self.areas,
            "means": self.means,
            "patches": self.patches,
            "coverage": self.coverage,
            "weights": self.weights,
        }


def _scatter(rows: Numbers, weights: Numbers) -> Numbers:
    """(N, D) and (N,) -> (D, D) weighted sum of the rows' products with themselves."""
    each = torch.from_numpy(rows)
    made: Numbers = ((each.T * torch.from_numpy(weights)) @ each).numpy()
    return made


def _sample(coverage: npt.NDArray[np.float32], limit: int) -> tuple[npt.NDArray[np.intp], Numbers]:
    """At most `limit` patches to keep, (N,) ascending, and for how many each stands.

    Each patch belongs to the label that covers most of it. Labels get places in turn, so that
    small ones are kept whole; a label's patches are taken evenly.
    """
    owners = coverage.argmax(axis=1)
    sizes = np.bincount(owners, minlength=coverage.shape[1])
    places = np.minimum(sizes, limit // max(1, np.count_nonzero(sizes)))
    for label in np.argsort(sizes, kind="stable"):  # what small ones leave, the larger share
        left = limit - places.sum()
        places[label] += min(left // 2, sizes[label] - places[label])
    kept, weights = [], []
    for label in np.flatnonzero(places):
        own = np.flatnonzero(owners == label)
        at = (np.arange(places[label]) + 0.5) * len(own) / places[label]
        kept.append(own[at.astype(np.intp)])
        weights.append(np.full(places[label], len(own) / places[label]))
    order = np.argsort(np.concatenate(kept))
    return np.concatenate(kept)[order], np.concatenate(weights)[order]
