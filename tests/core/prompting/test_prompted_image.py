"""Sizes of the grid and of the fine image."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.prompting.prompted_image import PromptedImage
from tests.core.prompting.test_prompts import DOG, Picture


@pytest.mark.parametrize(
    ("size_hw", "fine_hw", "cells_hw"),
    [
        ((64, 100), (64, 100), (64, 100)),  # fewer pixels than cells: each pixel is one
        ((400, 640), (400, 640), (100, 160)),
        ((1600, 2500), (800, 1250), (101, 158)),
    ],
)
def test_an_image_of_any_size_has_about_as_many_cells(
    size_hw: tuple[int, int], fine_hw: tuple[int, int], cells_hw: tuple[int, int]
) -> None:
    picture = Picture(np.ones(size_hw, bool))
    image = PromptedImage.of(picture.features, picture.scores, DOG, picture.image)
    assert image.geometry.image_hw == size_hw
    assert image.geometry.fine_hw == image.fine.rgb.shape[:2] == fine_hw
    assert image.geometry.cells_hw == image.geodesic.colours.shape[:2] == cells_hw
    assert image.geometry.patch_px == pytest.approx(16 * fine_hw[0] / 128)
