"""Overlap of two masks against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core import BoolMask
from clearclip_core.evaluation.metrics import MaskOverlap


def square(left: int, right: int) -> BoolMask:
    mask = np.zeros((10, 10), bool)
    mask[2:8, left:right] = True
    return mask


def test_pixels_and_boundary_bands_are_counted() -> None:
    """6 rows by 4 columns each, half of it shared; the band of 10 px diagonals is a pixel wide.

    A band of 6 x 4 has 16 pixels. Both bands have the top and bottom rows of the two shared columns
    in common: the left one's right edge is inside the right one.
    """
    made = MaskOverlap.of(square(1, 5), square(3, 7))
    assert made == MaskOverlap(24, 24, 12, band_shared_px=4, band_px=28)
    assert made.iou == pytest.approx(12 / 36)
    assert made.boundary_iou == pytest.approx(4 / 28)
    assert made.saved_paint == pytest.approx(1 - 24 / 24)


def test_a_missing_mask_covers_nothing() -> None:
    assert MaskOverlap.of(square(1, 5), None) == MaskOverlap(predicted_px=24, band_px=16)
    assert MaskOverlap.of(None, square(1, 5)) == MaskOverlap(true_px=24, band_px=16)
    nothing = MaskOverlap.of(None, None)
    assert (nothing.iou, nothing.boundary_iou, nothing.saved_paint) == (None, None, None)


def test_sums_are_shares_of_all_pictures() -> None:
    whole = MaskOverlap(8, 10, 6, 1, 4) + MaskOverlap(2, 0, 0, 0, 2)
    assert whole == MaskOverlap(10, 10, 6, 1, 6)
    assert whole.saved_paint == pytest.approx(1 - (4 + 4) / 10)
