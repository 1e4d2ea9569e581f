"""Overlap of a predicted mask and the true one: IoU, boundary IoU and saved paint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearclip_core.segmentation.masks import boundary_band
from clearclip_core.segmentation.runs import BoolMask


@dataclass(frozen=True)
class MaskOverlap:
    """Pixels of a predicted mask and of the true one; the sums over images are added with ``+``.

    Attributes:
        predicted_px: pixels of the prediction.
        true_px: pixels of the truth.
        shared_px: pixels of both.
        band_shared_px: pixels of both boundary bands, see `boundary_band`.
        band_px: pixels of either boundary band.

    >>> made = MaskOverlap(predicted_px=8, true_px=10, shared_px=6)
    >>> made.iou, made.saved_paint, made.boundary_iou
    (0.5, 0.4, None)
    """

    predicted_px: int = 0
    true_px: int = 0
    shared_px: int = 0
    band_shared_px: int = 0
    band_px: int = 0

    @classmethod
    def of(cls, predicted: BoolMask | None, true: BoolMask | None) -> MaskOverlap:
        """Count the pixels of two masks (H, W); a missing one covers none."""
        if predicted is None or true is None:
            mask = true if predicted is None else predicted
            if mask is None:
                return cls()
            whole, band = int(np.count_nonzero(mask)), int(np.count_nonzero(boundary_band(mask)))
            if predicted is None:
                return cls(true_px=whole, band_px=band)
            return cls(predicted_px=whole, band_px=band)
        bands = boundary_band(predicted), boundary_band(true)
        return cls(
            predicted_px=int(np.count_nonzero(predicted)),
            true_px=int(np.count_nonzero(true)),
            shared_px=int(np.count_nonzero(predicted & true)),
            band_shared_px=int(np.count_nonzero(bands[0] & bands[1])),
            band_px=int(np.count_nonzero(bands[0] | bands[1])),
        )

    def __add__(self, other: MaskOverlap) -> MaskOverlap:
        """Add the pixels of other masks."""
        return MaskOverlap(
            self.predicted_px + other.predicted_px,
            self.true_px + other.true_px,
            self.shared_px + other.shared_px,
            self.band_shared_px + other.band_shared_px,
            self.band_px + other.band_px,
        )

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
