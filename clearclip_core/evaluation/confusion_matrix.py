"""The confusion matrix of a data set, IoU and pixel accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearclip_core.images.label_maps import IGNORE

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Confusion:
    """Confusion matrix: pixels of all images by true and by predicted class.

    Matrices of different images are added. Sums of integers are exact in any order, so parts of a
    data set that are counted in different processes give exactly the matrix of the whole.

    Attributes:
        counts: (C, C) int64; rows are the truth, columns the prediction.

    Raises:
        ValueError: not square, not whole numbers, or a negative one.

    >>> truth, predicted = np.array([[0, 0, 1, IGNORE]]), np.array([[0, 1, 1, 1]])
    >>> confusion = Confusion.of(truth, predicted, classes=3)
    >>> confusion.counts.tolist()
    [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    >>> confusion.iou.tolist(), confusion.mean_iou
    ([0.5, 0.5, nan], 0.5)
    """

    counts: Counts

    def __post_init__(self) -> None:
        counts = self.counts
        square = counts.ndim == 2 and counts.shape[0] == counts.shape[1] > 0
        if not square or counts.dtype != np.int64 or (counts < 0).any():
            raise ValueError(
                "Expected argument `counts` to be a square matrix of int64 counts, but got "
                f"{counts.dtype} of shape {counts.shape}."
            )

    @classmethod
    def empty(cls, classes: int) -> Confusion:
        """Return a matrix of zeros."""
        return cls(np.zeros((classes, classes), np.int64))

    @classmethod
    def of(cls, truth: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int) -> Confusion:
        """Count the pixels of one image.

        Args:
            truth: (H, W) class indices; 255 is not counted.
            predicted: (H, W) class indices.
            classes: number of classes, C.

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

    @classmethod
    def sum(cls, parts: Sequence[Confusion]) -> Confusion:
        """Add the matrices of different images.

        Raises:
            ValueError: no matrix, or different numbers of classes.
        """
        if len({part.counts.shape for part in parts}) != 1:
            raise ValueError("Expected argument `parts` to be matrices of the same classes.")
        return cls(np.sum([part.counts for part in parts], axis=0, dtype=np.int64))

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
