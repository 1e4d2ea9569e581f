"""Similarities of cells to a clicked pixel, for features that are certain of their class."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.prompting.prompted_image import CellSimilarity, PromptedImage
from tests.core.prompting.test_prompts import DOG, Picture, disc


@pytest.fixture(scope="module")
def similarity() -> CellSimilarity:
    picture = Picture(disc((160, 256), (128, 80), 50))
    return PromptedImage.of(picture.features, picture.scores, DOG, picture.image).similarity


def test_probabilities_are_those_of_the_label(similarity: CellSimilarity) -> None:
    on_dog, on_grass = (similarity.geometry.cell(pixel) for pixel in ((80, 128), (4, 4)))
    assert similarity.log_probability[on_dog] == pytest.approx(0, abs=1e-3)
    assert similarity.log_probability[on_grass] == pytest.approx(np.log(1e-4), abs=1e-2)
    assert (similarity.root_probabilities**2).sum(axis=2) == pytest.approx(1, abs=1e-5)


def test_a_certain_click_is_similar_to_what_has_its_class(similarity: CellSimilarity) -> None:
    classes = similarity.classes((80, 128))
    assert classes == pytest.approx(similarity.log_probability, abs=1e-2)


def test_cosines_are_one_at_the_click_and_negative_on_the_other_class(
    similarity: CellSimilarity,
) -> None:
    cosines = similarity.cosines((80, 128))
    assert cosines.shape == similarity.geometry.cells_hw
    assert cosines[similarity.geometry.cell((80, 128))] == pytest.approx(1, abs=1e-2)
    assert cosines[0, 0] < 0
