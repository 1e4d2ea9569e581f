"""Pixels in dispute are drawn over the image in one colour, thin ones too."""

from __future__ import annotations

import numpy as np

from backend.agreement.dispute_pictures import dispute_picture, shrink
from tests.backend.label_errors.test_place_pictures import decoded


def test_what_is_in_dispute_is_seen_and_the_rest_stays_grey() -> None:
    rgb = np.full((600, 960, 3), (90, 130, 170), np.uint8)
    disputed = np.zeros((600, 960), bool)
    disputed[200:400, 300:600] = True
    disputed[498:501] = True
    drawn = decoded(dispute_picture(rgb, shrink(disputed)))
    assert drawn.shape == (300, 480, 3)
    red, green, blue = drawn[150, 225]
    assert red > green + 80, "pink"
    assert blue > green + 40
    assert np.ptp(drawn[20, 20]) < 50, "the image, with less colour"
    assert abs(int(drawn[20, 20].mean()) - 130) < 8, "as light as it is"
    line = drawn[249, 20]
    assert line[0] > drawn[20, 20][0] + 20, "a line of three pixels, which are one and a half here"


def test_a_small_image_is_not_made_larger() -> None:
    assert shrink(np.ones((3, 5), bool)).shape == (3, 5)
    assert shrink(np.ones((1, 5000), bool)).shape == (1, 480)
