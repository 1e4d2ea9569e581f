"""Log-odds of cells, before they become masks."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.prompting.prompted_image import PromptedImage
from clearclip_core.prompting.prompts import box_log_odds, click_log_odds
from tests.core.prompting.test_prompts import BOAT, DOG, Picture, disc


def prompted(label: int) -> PromptedImage:
    picture = Picture(disc((160, 256), (128, 80), 50))
    return PromptedImage.of(picture.features, picture.scores, label, picture.image)


def test_a_click_on_its_label_has_its_full_log_odds() -> None:
    image = prompted(DOG)
    maps = click_log_odds(image, [(80, 128)], [])
    assert maps.shape == (1, *image.geometry.cells_hw)
    assert maps[0][image.geometry.cell((80, 128))] == pytest.approx(16 + 1.2 * np.log(2), abs=0.05)
    assert maps[0][image.geometry.cell((4, 4))] < 0


def test_each_negative_click_has_a_map_that_only_lowers_the_first() -> None:
    maps = click_log_odds(prompted(DOG), [(80, 128)], [(80, 100), (4, 4)])
    assert len(maps) == 3
    assert (maps[1:] <= maps[0]).all()
    assert maps[1][prompted(DOG).geometry.cell((80, 100))] < 0


def test_a_box_without_its_label_has_only_what_stands_out() -> None:
    box = (slice(20, 140), slice(60, 200))
    with_label, without = list(box_log_odds(prompted(DOG), box)), prompted(BOAT)
    assert len(with_label) == 2
    (salient,) = box_log_odds(without, box)
    assert salient[without.geometry.cell((80, 128))] > 0
    assert salient[without.geometry.cell((22, 62))] < 0


def test_a_box_of_the_whole_image_has_no_surroundings() -> None:
    image = prompted(DOG)
    (by_text,) = box_log_odds(image, (slice(0, 160), slice(0, 256)))
    text = image.similarity.log_probability
    assert by_text == pytest.approx(0.6 * (text + np.log(2)), abs=1e-5)
