"""The label of each pixel of an image, how certain it is, and its masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from clearclip_core.images.drawing import FILL_OPACITY, overlay
from clearclip_core.images.label_maps import NONE_VALUE, label_shares
from clearclip_core.images.opening import ImageLike, read_rgb
from clearclip_core.segmentation.masks import LabelMasks
from clearclip_core.segmentation.runs import BoolMask, LabelRuns
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.upsampling import Matrix, Values
from clearclip_core.thread_pools import one_blas_thread


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """The label of each pixel of an image."""

    label_map: npt.NDArray[np.int16]  #: (H, W) int16, index into `labels`, -1 for no label
    confidence: npt.NDArray[np.float16]  #: (H, W) float16 in [0, 1], that of the winning query
    labels: tuple[str, ...]

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.label_map.shape[0], self.label_map.shape[1]

    def __repr__(self) -> str:
        height, width = self.size_hw
        shares = label_shares(self.label_map, len(self.labels)).tolist()
        found = sorted(zip(shares, self.labels, strict=True), reverse=True)
        found.append((float(np.mean(self.label_map < 0)), "none"))
        parts = ", ".join(f"{label} {share:.0%}" for share, label in found if share)
        return f"<Segmentation {width} × {height} px: {parts}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the arrays, and not the scores or the device that they come from."""
        confidence = self.confidence  # first, as in `label_masks`
        return Segmentation, (self.label_map, confidence, self.labels)

    def mask(self, label: str) -> BoolMask:
        """Return the mask of a label: (H, W) bool, all False where it has no pixel.

        Args:
            label: name of the label.

        Raises:
            ValueError: an unknown label.
        """
        if label not in self.labels:
            raise ValueError(
                f"Expected argument `label` to be in {self.labels}, but got {label!r}."
            )
        return np.asarray(self.label_map == self.labels.index(label))

    def save(self, path: Path | str) -> None:
        """Write the label map as a grey PNG: values are indices of labels, 255 is no label.

        Args:
            path: of the file, which is replaced; it ends in ``.png``, or has no ending.

        Raises:
            ValueError: another ending, or more than 255 labels.
        """
        if Path(path).suffix.lower() not in ("", ".png"):
            raise ValueError(
                f"Expected argument `path` to end in .png, but got {str(path)!r}. Of numbers take "
                "np.savez_compressed(path, label_map=result.label_map, labels=result.labels)."
            )
        if (count := len(self.labels)) > NONE_VALUE:
            raise ValueError(f"A PNG holds at most {NONE_VALUE} labels, but got {count}.")
        values = np.where(self.label_map < 0, NONE_VALUE, self.label_map).astype(np.uint8)
        Image.fromarray(values).save(path, "PNG", optimize=True)

    def overlay(self, image: ImageLike | None = None, opacity: float = FILL_OPACITY) -> Image.Image:
        """Draw the labels in colours, with contours and a legend; notebooks show what it returns.

        Args:
            image: the image below them, as `Segmenter.segment` takes it; None: white.
            opacity: of the fill, 0 (contours alone) to 1.

        Returns:
            A Pillow image, H px high, with the legend to the right.

        Raises:
            ValueError: an image of another size.

        >>> found = np.array([[0, 0, -1], [0, 1, 1]], np.int16)
        >>> result = Segmentation(found, np.ones((2, 3), np.float16), ("sky", "sea"))
        >>> result.overlay().height
        2
        """
        rgb = np.full((*self.size_hw, 3), 255, np.uint8) if image is None else read_rgb(image)
        if rgb.shape[:2] != self.size_hw:
            raise ValueError(
                f"Expected argument `image` to be of {self.size_hw} px (height, width), but got "
                f"{rgb.shape[:2]}."
            )
        return overlay(rgb, self.label_map, self.labels, opacity)

    def show(self, image: ImageLike | None = None) -> None:
        """Open the overlay in the viewer of the system.

        Args:
            image: as in `overlay`.
        """
        self.overlay(image).show()

    def _repr_png_(self) -> bytes:
        """Show the labels in a notebook."""
        content = BytesIO()
        self.overlay().save(content, "PNG")
        return content.getvalue()

    def masks(self, min_island_px: int = 0, min_hole_px: int = 0) -> dict[str, BoolMask]:
        """Return one mask for each label that has a pixel.

        Args:
            min_island_px: parts of a mask of fewer pixels are dropped; 0 keeps all.
            min_hole_px: holes of fewer pixels are filled; 0 fills none.

        Returns:
            Name of the label -> (H, W) bool.
        """
        masks = self.label_masks(min_island_px, min_hole_px)
        return {self.labels[index]: mask for index, mask in masks}

    def label_masks(
        self, min_island_px: int = 0, min_hole_px: int = 0, numbers: npt.NDArray[Any] | None = None
    ) -> LabelMasks:
        """Return the masks of all labels, to be made one at a time.

        Args:
            min_island_px: parts of a mask of fewer pixels are dropped; 0 keeps all.
            min_hole_px: holes of fewer pixels are filled; 0 fills none.
            numbers: labels that share a mask, see `LabelMasks`.
        """
        # First: where it is computed on request, the label map comes with it.
        confidence = self.confidence
        runs = LabelRuns.of(self.label_map)
        return LabelMasks(runs, runs.sums(confidence), min_island_px, min_hole_px, numbers)

    def above(self, thresholds: Mapping[str, float]) -> "Segmentation":
        """Return the segmentation without the pixels that are below their label's threshold.

        Args:
            thresholds: name of a label -> least probability of its pixels, in [0, 1]; 0 for labels
                that are not there. Both are compared as float16.
        """
        limits = self._limits(thresholds)
        if not limits.any():
            return self

        confidence = self.confidence  # first, as in `label_masks`
        runs = LabelRuns.of(self.label_map)

        # As integers, floats of 0 and more have their own order, and compare many times as fast.
        least = limits.view(np.uint16)[runs.labels].repeat(runs.lengths).reshape(self.size_hw)
        reached = confidence.view(np.uint16) >= least
        label_map = np.where(reached, self.label_map, np.int16(-1))
        return Segmentation(label_map, confidence, self.labels)

    def _limits(self, thresholds: Mapping[str, float]) -> npt.NDArray[np.float16]:
        """Return (labels + 1,) float16, the threshold of each label; the last is that of -1."""
        return np.array([thresholds.get(name, 0.0) for name in self.labels] + [0.0], np.float16)


class LazySegmentation(Segmentation):
    """A segmentation without a threshold, computed from scores when it is asked for.

    The confidence takes three times as long as the label map, and who saves label maps or asks for
    masks by name needs none. Both together cost what the confidence costs if it is read first.

    Args:
        scores: of the image, on the CPU; they are kept, some hundred kB.
    """

    _scores: Scores

    def __init__(self, scores: Scores) -> None:
        object.__setattr__(self, "_scores", scores)
        object.__setattr__(self, "labels", scores.vocabulary.names)

    @cached_property
    def label_map(self) -> npt.NDArray[np.int16]:
        """(H, W) int16, see ``Scores.label_map``."""
        return self._scores.label_map()

    @cached_property
    def confidence(self) -> npt.NDArray[np.float16]:
        """(H, W) float16 in [0, 1], see ``Scores.decide``."""
        label_map, confidence = self._scores.decide()
        self.__dict__.setdefault("label_map", label_map)
        return confidence

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in px."""
        return self._scores.plan.image_hw

    def masks(self, min_island_px: int = 0, min_hole_px: int = 0) -> dict[str, BoolMask]:
        """Return one mask for each label, see `Segmentation.masks`; no confidence is computed."""
        runs = LabelRuns.of(self.label_map)
        masks = LabelMasks(runs, np.zeros(len(runs)), min_island_px, min_hole_px)
        return {self.labels[index]: mask for index, mask in masks}


def decide(scores: Scores, threshold: float | Sequence[float] = 0.0) -> Segmentation:
    """Decide the best label of each pixel: at once on a GPU or with a threshold, else when asked.

    Args:
        scores: of the image.
        threshold: probability below which a pixel gets no label, see ``Scores.label_map``.

    Raises:
        ValueError: neither one threshold nor one for each label.
    """
    if scores.is_on_device or scores.thresholds(threshold).any():
        return Segmentation(*scores.decide(threshold), scores.vocabulary.names)
    return LazySegmentation(scores)


@dataclass(frozen=True)
class Uncertainty:
    """Uncertainty of an image's label map and the effort to correct it.

    The classes are the labels and, together as one more, the contrast words. The probability of a
    class is the softmax over the classes of ``temperature · cosine``, with the cosine of its best
    query. So synonyms do not compete with one another, the winner is that of the label map, and
    the probabilities of a pixel add up to 1.

    Raises:
        ValueError: a figure outside [0, 1].
    """

    #: 1 less the mean margin between the two best classes, in [0, 1]; 0 where there is only one
    #: class. This is the margin of active learning (Scheffer et al., "Active Hidden Markov Models
    #: for Information Extraction", 2001), averaged over the image.
    uncertainty: float
    #: expected share of the image's pixels with a wrong label, in [0, 1], the mean of 1 less the
    #: probability of the label in the label map. It is as good as the model's probabilities are
    #: calibrated.
    effort: float

    def __post_init__(self) -> None:
        for name, value in (("uncertainty", self.uncertainty), ("effort", self.effort)):
            if not 0 <= value <= 1:
                raise ValueError(f"Expected argument `{name}` to be in [0, 1], but got {value}.")

    @classmethod
    @one_blas_thread()
    def of(cls, scores: Scores, threshold: float | Sequence[float] = 0.0) -> "Uncertainty":
        """Estimate both figures at one position for each patch, without the guided filter.

        Args:
            scores: of the image.
            threshold: probability below which a pixel gets no label, see ``Scores.label_map``.
                Such a pixel counts as right with the probability of the contrast words; without
                contrast words it counts as wrong.

        Raises:
            ValueError: neither one threshold nor one for each label.

        >>> import torch
        >>> from clearclip_core import Vocabulary
        >>> from clearclip_core.segmentation.windows import WindowPlan
        >>> plan = WindowPlan((1, 2), (1, 2), window_px=2, stride_px=2, patch_hw=(1, 1))
        >>> cosines = torch.tensor([[0.75, 0.5], [0.25, 0.5]]).log().reshape(2, 1, 2)
        >>> Uncertainty.of(Scores(cosines, plan, Vocabulary.of(["cat", "dog"]), temperature=1.0))
        Uncertainty(uncertainty=0.75, effort=0.375)
        """
        thresholds = scores.thresholds(threshold)
        y_px, x_px = _patch_positions(scores)
        margin = right = 0.0
        for _, logits in scores.logits_at(y_px, x_px):
            band_margin, band_right = _sums(logits, scores.vocabulary.query_labels, thresholds)
            margin += band_margin
            right += band_right
        positions = len(y_px) * len(x_px)
        return cls(_complement(margin / positions), _complement(right / positions))


def _sums(
    logits: Values, query_labels: Sequence[int], thresholds: npt.NDArray[np.float32]
) -> tuple[float, float]:
    """Sum the margins, and the probabilities that the label is right, over (r, n, Q) logits."""
    labels = np.asarray(query_labels)
    first = np.flatnonzero(np.diff(labels, prepend=-2))  # a class's queries follow one another
    logits -= logits.max(axis=2, keepdims=True)
    classes = np.exp(np.maximum.reduceat(logits, first, axis=2))  # (r, n, C), the best's 1
    winner = labels[first][classes.argmax(axis=2)]
    # The winner's own softmax over all queries is 1 / sum(exp(logits)).
    unlabelled = thresholds[winner] * np.exp(logits).sum(axis=2) > 1
    classes /= classes.sum(axis=2, keepdims=True)
    best = classes.max(axis=2)
    second = np.partition(classes, -2)[..., -2] if len(first) > 1 else 0.0
    contrast = classes[..., -1] if labels[-1] < 0 else 0.0  # contrast words come last
    right = np.where(unlabelled, contrast, best).sum(dtype=np.float64)
    return float((best - second).sum(dtype=np.float64)), float(right)


def _patch_positions(scores: Scores) -> tuple[Matrix, Matrix]:
    """Return rows and columns, in px, of the middles of equal parts of about a patch each."""
    parts = [ceil(side / max(scores.plan.patch_image_px, 1)) for side in scores.plan.image_hw]
    y_px, x_px = (
        (np.arange(count) + 0.5) * side / count - 0.5
        for count, side in zip(parts, scores.plan.image_hw, strict=True)
    )
    return y_px, x_px


def _complement(share: float) -> float:
    """Return 1 less a share, which rounding may have put slightly outside [0, 1]."""
    return min(max(1 - float(share), 0.0), 1.0)
