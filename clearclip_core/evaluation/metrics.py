"""Metrics of label maps and masks: confusion matrix, overlap, boundaries."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from clearclip_core.images.label_maps import IGNORE, Truth
from clearclip_core.segmentation.masks import boundary_band
from clearclip_core.segmentation.runs import BoolMask

LabelIndices = npt.NDArray[np.int16]  # (H, W) class index of each pixel; -1 for none


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Confusion matrix: pixels of all images by true and by predicted class.

    Matrices of different images are added. Sums of integers are exact in any order, so parts of a
    data set that are counted in different processes give exactly the matrix of the whole.

    >>> truth, predicted = np.array([[0, 0, 1, IGNORE]]), np.array([[0, 1, 1, 1]])
    >>> confusion = ConfusionMatrix.of(truth, predicted, classes=3)
    >>> confusion.counts.tolist()
    [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    >>> confusion.iou.tolist(), confusion.mean_iou
    ([0.5, 0.5, nan], 0.5)
    """

    counts: npt.NDArray[np.int64]  # (C, C) int64; rows are the truth, columns the prediction

    @classmethod
    def empty(cls, classes: int) -> ConfusionMatrix:
        """Return a matrix of zeros."""
        return cls(np.zeros((classes, classes), np.int64))

    @classmethod
    def of(
        cls, truth: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int
    ) -> ConfusionMatrix:
        """Count the pixels of one image.

        Args:
            truth: (H, W) class indices; 255 is not counted.
            predicted: (H, W) class indices.

        Raises:
            ValueError: maps of different sizes, or an index that is no class.
        """
        if truth.shape != predicted.shape:
            raise ValueError(
                f"Expected argument `predicted` to be of the truth's shape {truth.shape}, but got "
                f"{predicted.shape}."
            )
        counted = truth != IGNORE
        rows, columns = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
        for name, values in (("truth", rows), ("predicted", columns)):
            if values.size and not 0 <= values.min() <= values.max() < classes:
                raise ValueError(
                    f"Expected argument `{name}` to hold classes 0 to {classes - 1}, but got "
                    f"{values.min()} to {values.max()}."
                )
        flat = np.bincount(rows * classes + columns, minlength=classes * classes)
        return cls(flat.reshape(classes, classes).astype(np.int64))

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Add the matrix of other images, of the same classes."""
        return ConfusionMatrix(self.counts + other.counts)

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union of each class, (C,) in [0, 1].

        nan for a class that is neither in the data nor predicted: its union is empty. A class that
        is predicted but not in the data has 0.
        """
        hits = self.counts.diagonal()
        union = self.counts.sum(axis=0) + self.counts.sum(axis=1) - hits
        iou = np.full(len(hits), np.nan)
        iou[union > 0] = hits[union > 0] / union[union > 0]
        return iou

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` without its nan values, as in MMSegmentation; nan where all are nan.

        Intersections and unions are summed over all pictures before they are divided (the
        benchmarks' mIoU, Sec. 4.1 of the paper).
        """
        known = self.iou[~np.isnan(self.iou)]
        return float(known.mean()) if known.size else float("nan")

    @property
    def pixel_accuracy(self) -> float:
        """Share of pixels with the true class, in [0, 1]; nan where no pixel is counted."""
        total = self.counts.sum()
        return float(self.counts.diagonal().sum() / total) if total else float("nan")


@dataclass(frozen=True)
class MaskOverlap:
    """Pixels of a predicted mask and of the true one; the sums over images are added with ``+``.

    >>> made = MaskOverlap(predicted_px=8, true_px=10, shared_px=6)
    >>> made.iou, made.saved_paint, made.boundary_iou
    (0.5, 0.4, None)
    """

    predicted_px: int = 0
    true_px: int = 0
    shared_px: int = 0
    band_shared_px: int = 0  # pixels of both boundary bands, see `boundary_band`
    band_px: int = 0

    @classmethod
    def of(cls, predicted: BoolMask | None, true: BoolMask | None) -> MaskOverlap:
        """Count the pixels of two masks (H, W); a missing one covers none."""
        bands = [None if mask is None else boundary_band(mask) for mask in (predicted, true)]
        band_shared_px = _shared_px(*bands)
        return cls(
            predicted_px=_shared_px(predicted),
            true_px=_shared_px(true),
            shared_px=_shared_px(predicted, true),
            band_shared_px=band_shared_px,
            band_px=sum(map(_shared_px, bands)) - band_shared_px,
        )

    def __add__(self, other: MaskOverlap) -> MaskOverlap:
        return MaskOverlap(*map(operator.add, vars(self).values(), vars(other).values()))

    @property
    def wrong_px(self) -> int:
        """Pixels to paint and to erase."""
        return self.predicted_px + self.true_px - 2 * self.shared_px

    @property
    def iou(self) -> float | None:
        """Intersection over union; None where neither covers anything."""
        union = self.predicted_px + self.true_px - self.shared_px
        return self.shared_px / union if union else None

    @property
    def boundary_iou(self) -> float | None:
        """Boundary IoU (Cheng et al., 2021); None where neither has a boundary band."""
        return self.band_shared_px / self.band_px if self.band_px else None

    @property
    def saved_paint(self) -> float | None:
        """1 - (pixels painted + pixels erased) / pixels of the truth; None where it has none.

        1 where nothing is left to do, 0 where drawing from nothing is as much work, below 0 where
        the prediction makes more work than none.
        """
        return 1 - self.wrong_px / self.true_px if self.true_px else None


def mask_overlaps(masks: Mapping[int, BoolMask], truth: Truth, labels: int) -> list[MaskOverlap]:
    """Compare the predicted mask of each label with its true one.

    Args:
        masks: index of the label -> (H, W) bool; a missing one covers nothing.
        truth: (H, W) uint8, index of each pixel's label. Where it is 255, nothing is counted.
        labels: number of labels.

    Returns:
        The overlap of each label, in their order.
    """
    counted = truth != IGNORE
    overlaps = []
    for index in range(labels):
        predicted = masks[index] & counted if index in masks else None
        true = truth == index
        overlaps.append(MaskOverlap.of(predicted, true if true.any() else None))
    return overlaps


def _shared_px(*masks: BoolMask | None) -> int:
    """Return the number of pixels that all of the masks cover; a missing one covers none."""
    known = [mask for mask in masks if mask is not None]
    return int(np.count_nonzero(reduce(np.logical_and, known))) if len(known) == len(masks) else 0
