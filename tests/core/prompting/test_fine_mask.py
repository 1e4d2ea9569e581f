"""Masks at the fine size, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.prompting.prompted_image import FineImage, GridGeometry


def fine_image(image_hw: tuple[int, int] = (40, 80)) -> FineImage:
    """A left half in black and a right half in white: 20 x 40 px, cells of 4 x 4 px."""
    rgb = np.zeros((20, 40, 3), np.uint8)
    rgb[:, 18:] = 255
    return FineImage(rgb, GridGeometry(image_hw, (20, 40), (5, 10), patch_px=16.0))


def test_log_odds_are_sharpened_at_the_edge_of_the_image() -> None:
    log_odds = np.full((1, 5, 10), -9, np.float32)
    log_odds[:, :, 5:] = 9  # from 20 px on, where the edge of the image is at 18 px
    inside = fine_image().sharpen(log_odds)[0] > 0
    assert inside.shape == (20, 40)
    assert np.flatnonzero(inside[10])[0] == 18


def test_a_square_of_a_cell_is_filled_around_a_pixel() -> None:
    fine = np.zeros((20, 40), bool)
    fine_image().fill_around(fine, [(20, 40), (0, 0)], True)
    assert fine.sum() == 25 + 9  # 2 px in each direction, cut off at the corner
    assert fine[8:13, 18:23].all()
    assert fine[:3, :3].all()


def test_only_the_parts_with_a_pixel_are_kept() -> None:
    fine = np.zeros((20, 40), bool)
    fine[:5, :5] = fine[5, 5] = fine[10:, 20:] = True
    kept = fine_image().parts_at(fine, [(4, 4), (19, 79)])  # the second is outside all parts
    assert kept.sum() == 26
    assert kept[5, 5]


def test_a_mask_is_enlarged_to_the_image() -> None:
    fine = np.zeros((20, 40), bool)
    fine[:, 20:] = True
    assert np.array_equal(fine_image().enlarge(fine), fine.repeat(2, 0).repeat(2, 1))
    assert fine_image((20, 40)).enlarge(fine) is fine


def test_confidence_is_the_logistic_function_in_steps() -> None:
    log_odds = np.full((5, 10), np.log(3), np.float32)
    confidence = fine_image().confidence(log_odds)
    assert confidence.shape == (40, 80)
    assert confidence.dtype == np.float16
    assert confidence == pytest.approx(0.75, abs=1 / 255)
