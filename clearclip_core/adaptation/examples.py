"""Training examples: features of corrected images with the masks that annotators left.

The size of an example is bounded: it holds means of the labels and a sample of the patches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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
from clearclip_core.adaptation.sufficient_statistics import (
    Float64Array,
    SufficientStatistics,
    scatter_matrix,
)
from clearclip_core.segmentation.masks import is_made_of_boxes
from clearclip_core.segmentation.runs import BoolMask
from clearclip_core.segmentation.scores import apply_presence
from clearclip_core.segmentation.windows import DenseFeatures, WindowPlan

Float32Array = npt.NDArray[np.float32]

#: The name of the area that no label covers.
UNLABELED = ""

#: Limit of the numbers in an example's sample of patches: 192 kB in float16.
SAMPLE_SIZE = 98_304

#: Cells a side of the grid by which similar images are found.
LAYOUT_CELLS = 4

#: Number of patches at which a label of an image has the weight 1/2; large areas tend to 1.
HALF_PATCHES = 4.0


@dataclass(frozen=True, eq=False)
class Example:
    """A training example: one annotator's correction of an image, in about 200 kB.

    Attributes:
        known: names of the labels that competed on the image, sorted.
        names: names of the labels that cover a part of it, sorted; "" stands for the area without
            a label.
        areas: (K,) float32, area of each label in patches.
        means: (K, D) float32, mean feature of each label.
        patches: (N, D) float16, a sample of the patch features, with patches of every label.
        coverage: (N, K) float16 in [0, 1], share of each sampled patch that each label covers.
        weights: (N,) float32, number of patches that each sampled patch stands for.
        picture: id of the image, equal in all corrections of the image; "" where the image has no
            other correction.
        annotator: opaque id of who made the correction; "" where nobody knows.
        kept: (N, K) float16 in [0, 1], the part of `coverage` that a prediction showed and the
            annotator left untouched; None where nobody knows.
        removed_names: names of the labels that a prediction showed somewhere and the annotator
            took away there, sorted.
        removed: (N, R) float16 in [0, 1], share of each sampled patch where that happened to each
            label of `removed_names`; None where there is no such label.
        boxes: names of the labels whose mask is made of boxes, sorted.
        layout: (16, D) float16, mean feature of each cell of a 4 x 4 grid over the image, row by
            row, by which similar images are found; None in examples of version 0.1.
        cls: (D,) float16, CLS feature of the image; None where the image was encoded without.
        presence: weight of the presence prior by which words score the example, see
            `with_presence`; it is no part of the content.

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
    annotator: str = ""
    kept: npt.NDArray[np.float16] | None = None
    removed_names: tuple[str, ...] = ()
    removed: npt.NDArray[np.float16] | None = None
    boxes: tuple[str, ...] = ()
    layout: npt.NDArray[np.float16] | None = None
    cls: npt.NDArray[np.float16] | None = None
    presence: float = 0.0

    def __post_init__(self) -> None:
        check_names(self.known)
        check_names(self.names)
        labels, sampled = len(self.names), len(self.patches)
        check_shape("areas", self.areas, (labels,))
        check_shape("means", self.means, (labels, self.width))
        check_shape("patches", self.patches, (sampled, self.width))
        check_shape("coverage", self.coverage, (sampled, labels))
        check_shape("weights", self.weights, (sampled,))
        check_names(self.removed_names)
        check_names(self.boxes)
        if self.kept is not None:
            check_shape("kept", self.kept, self.coverage.shape)
        if self.removed is not None:
            check_shape("removed", self.removed, (sampled, len(self.removed_names)))
        if self.layout is not None:
            check_shape("layout", self.layout, (LAYOUT_CELLS**2, self.width))
        if self.cls is not None:
            check_shape("cls", self.cls, (self.width,))

    @classmethod
    def of(
        cls,
        features: DenseFeatures,
        masks: Mapping[str, BoolMask],
        known: Collection[str],
        picture: str = "",
        *,
        annotator: str = "",
        kept: Mapping[str, BoolMask] | None = None,
        removed: Mapping[str, BoolMask] | None = None,
    ) -> Example:
        """Make an example of an image's features and the masks that its annotator left.

        Args:
            features: features of the image.
            masks: name of the label -> (H, W) bool, in the size of the image; may overlap.
            known: names of all labels that the annotator could have used.
            picture: id of the image, such as ``PreparedImage.digest``.
            annotator: opaque id of who made the correction, the same in all of that person's.
            kept: name of the label -> (H, W) bool, the part of its mask that a prediction showed
                and the annotator left untouched; None where nobody knows.
            removed: name of the label -> (H, W) bool, the area that a prediction showed as the
                label and that the annotator took from it.

        Raises:
            ValueError: a mask of another size, a label without a name, or features of a method that
                weighs classes by the windows' CLS features, which cannot be adapted.
        """
        if features.remove_redundancy:
            raise ValueError(
                "Expected argument `features` to be of a method that scores patches by themselves, "
                "but it weighs classes by the windows' CLS features: such a method cannot learn "
                "from corrections."
            )
        if UNLABELED in {*masks, *known}:
            raise ValueError("Expected labels to have names, but got an empty one.")
        flat = features.patches.reshape(-1, features.patches.shape[-1])
        patches = flat.detach().to("cpu", torch.float32).numpy()  # (P, D)
        names, coverage, boxes = _coverage(features.plan, masks)
        areas = coverage.sum(axis=0, dtype=np.float64)
        with np.errstate(invalid="ignore"):  # of features that are not finite, see `is_finite`
            means = coverage.T.astype(np.float64) @ patches / areas[:, None]
        sampled, weights = _sample(coverage, max(1, SAMPLE_SIZE // patches.shape[1]))
        removed_names, taken = _shares(features.plan, removed or {})
        return cls(
            tuple(sorted({*known, *masks})),
            names,
            areas.astype(np.float32),
            means.astype(np.float32),
            patches[sampled].astype(np.float16),
            coverage[sampled].astype(np.float16),
            weights.astype(np.float32),
            picture,
            annotator,
            _kept(features.plan, names, kept)[sampled] if kept is not None else None,
            removed_names,
            taken[sampled].astype(np.float16) if removed_names else None,
            boxes,
            mean_cells(features),
            None if features.cls is None else features.image_cls.cpu().numpy().astype(np.float16),
        )

    def with_presence(self, weight: float) -> Example:
        """Return the example as words with a presence prior score it.

        An example without `cls` is scored without a prior.

        Args:
            weight: weight of the prior in [0, 1), see `clearclip_core.segmentation.scores`.
        """
        return replace(self, presence=0.0 if self.cls is None else weight)

    def word_terms(self, embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return by what words score the example: text embeddings, and offsets of the cosines.

        Args:
            embeddings: (Q, D) unit text embeddings.

        Returns:
            (Q, D) and (Q,): with a presence prior those of `apply_presence`, else the embeddings
            themselves and zeros.
        """
        if self.cls is None or not self.presence:
            return embeddings, embeddings.new_zeros(len(embeddings))
        return apply_presence(embeddings, torch.from_numpy(self.cls), self.presence)

    @property
    def width(self) -> int:
        """Dimension of the features, D."""
        return int(self.patches.shape[1])

    @cached_property
    def mean_feature(self) -> Float32Array:
        """(D,) float32, mean of the image's patch features, estimated from the sample."""
        weights = self.weights / max(float(self.weights.sum()), 1e-9)
        mean: Float32Array = weights @ self.patches.astype(np.float32)
        return mean

    @cached_property
    def digest(self) -> str:
        """Hex digest of the content."""
        return digest_of(self._metadata, self._arrays)

    @cached_property
    def is_finite(self) -> bool:
        """Whether all numbers are finite; `clearclip_core.adapt` leaves other examples out.

        A feature is nan or infinite where an activation was too large for the model's precision.
        """
        return all(np.isfinite(array).all() for array in self._arrays.values())

    @property
    def picture_key(self) -> str:
        """Key of the image: equal for examples of one image, different for other images."""
        return self.picture or self.digest

    @property
    def statistics(self) -> SufficientStatistics:
        """Sufficient statistics of the image; the variance within labels is the sample's."""
        areas, means = self.areas.astype(np.float64), self.means.astype(np.float64)
        counts = areas / (areas + HALF_PATCHES)
        shares = self.coverage.astype(np.float64) * self.weights[:, None]  # (N, K)
        totals = shares.sum(axis=0)
        shares = shares / np.where(totals > 0, totals, 1)
        patches = self.patches.astype(np.float64)
        middles = shares.T @ patches  # (K, D), 0 for a label without a patch
        spread = scatter_matrix(patches, shares @ counts) - scatter_matrix(middles, counts)
        moment = spread + scatter_matrix(means, counts)
        return SufficientStatistics(self.names, counts, counts[:, None] * means, moment, 1)

    def to_bytes(self) -> bytes:
        """Return the example as the bytes of a safetensors file."""
        return to_safetensors("example", self._metadata, self._arrays)

    @classmethod
    def from_bytes(cls, data: bytes, width: int | None = None) -> Example:
        """Read an example from the bytes of `to_bytes`.

        Args:
            data: the bytes.
            width: expected dimension of the features; None accepts any.

        Raises:
            ValueError: damaged bytes, another format, or features of another model.
        """
        made = unpack_as(
            data,
            "example",
            ("areas", "means", "patches", "coverage", "weights"),
            lambda metadata, arrays: cls(
                tuple(metadata["known"]),
                tuple(metadata["names"]),
                arrays["areas"],
                arrays["means"],
                arrays["patches"],
                arrays["coverage"],
                arrays["weights"],
                str(metadata.get("picture", "")),
                str(metadata.get("annotator", "")),
                arrays.get("kept"),
                tuple(metadata.get("removed", ())),
                arrays.get("removed"),
                tuple(metadata.get("boxes", ())),
                arrays.get("layout"),
                arrays.get("cls"),
            ),
            optional=("kept", "removed", "layout", "cls"),
        )
        check_width(made.width, width)
        return made

    @property
    def _metadata(self) -> dict[str, Any]:
        metadata = {"known": list(self.known), "names": list(self.names)}
        # Absent values stay out, so that examples of version 0.1 keep their digests.
        more = {
            "picture": self.picture,
            "annotator": self.annotator,
            "removed": list(self.removed_names),
            "boxes": list(self.boxes),
        }
        return metadata | {name: value for name, value in more.items() if value}

    @property
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        optional: dict[str, npt.NDArray[Any] | None] = {
            "kept": self.kept,
            "removed": self.removed,
            "layout": self.layout,
            "cls": self.cls,
        }
        arrays: dict[str, npt.NDArray[Any]] = {
            "areas": self.areas,
            "means": self.means,
            "patches": self.patches,
            "coverage": self.coverage,
            "weights": self.weights,
        }
        return arrays | {name: array for name, array in optional.items() if array is not None}


def _coverage(
    plan: WindowPlan, masks: Mapping[str, BoolMask]
) -> tuple[tuple[str, ...], Float32Array, tuple[str, ...]]:
    """Return the names of labels with an area, and (P, K) shares of each patch that they cover.

    The area without a label comes first. Last come the names of the labels whose mask is of boxes.
    Only one mask is held at a time, as `masks` may make them on demand.
    """
    rest = np.ones(plan.image_hw, np.bool_)
    covered: dict[str, Float32Array] = {}
    boxes = []
    for name in sorted(masks):
        mask = masks[name]
        covered[name] = plan.coverage(mask).reshape(-1)
        rest &= ~mask
        if is_made_of_boxes(mask):
            boxes.append(name)
        del mask
    covered = {UNLABELED: plan.coverage(rest).reshape(-1)} | covered
    names = tuple(name for name, each in covered.items() if each.any())
    return names, np.stack([covered[name] for name in names], axis=1), tuple(boxes)


def _shares(
    plan: WindowPlan, masks: Mapping[str, BoolMask]
) -> tuple[tuple[str, ...], Float32Array]:
    """Return the names of masks with an area, and (P, R) shares of each patch that they cover."""
    covered = {name: plan.coverage(masks[name]).reshape(-1) for name in sorted(masks)}
    names = tuple(name for name, each in covered.items() if each.any())
    empty = np.zeros((plan.count * plan.grid_hw[0] * plan.grid_hw[1], 0), np.float32)
    return names, np.stack([covered[name] for name in names], axis=1) if names else empty


def _kept(
    plan: WindowPlan, names: Sequence[str], kept: Mapping[str, BoolMask]
) -> npt.NDArray[np.float16]:
    """Return the (P, K) shares of each patch that the labels `names` keep as predicted."""
    found, shares = _shares(plan, kept)
    aligned = np.zeros((len(shares), len(names)), np.float16)
    for index, name in enumerate(names):
        if name in found:
            aligned[:, index] = shares[:, found.index(name)]
    return aligned


def mean_cells(features: DenseFeatures) -> npt.NDArray[np.float16]:
    """Average the features over the cells of a grid over the image: `Example.layout`.

    Args:
        features: features of the image.

    Returns:
        (16, D) float16, mean feature of each cell of a 4 x 4 grid, row by row.
    """
    mosaic = features.plan.mosaic(features.patches.permute(0, 3, 1, 2)).float()
    cells = torch.nn.functional.adaptive_avg_pool2d(mosaic[None], LAYOUT_CELLS)[0]
    return cells.flatten(1).T.contiguous().cpu().numpy().astype(np.float16)


def _sample(
    coverage: npt.NDArray[np.float32], limit: int
) -> tuple[npt.NDArray[np.intp], Float64Array]:
    """Choose at most `limit` patches: (N,) ascending indices, and the patches each stands for.

    Each patch belongs to the label that covers most of it. All labels get the same number of
    places; small labels keep all patches, and their free places go to larger labels. The patches
    of a label are sampled at equal steps.
    """
    owners = coverage.argmax(axis=1)
    sizes = np.bincount(owners, minlength=coverage.shape[1])
    places = np.minimum(sizes, limit // max(1, np.count_nonzero(sizes)))
    for label in np.argsort(sizes, kind="stable"):
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
