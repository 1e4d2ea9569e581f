"""Masks as predictions of a project have them, of a stand-in that sees colours."""

import numpy as np
import pytest

from backend.label_studio.label_config_parser import parse_label_config
from backend.learning.predicted_masks import MaskPredictor
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import (
    ColourSegmenter,
    brush_config,
    colour_engine,
    flag,
    teach,
)

CONFIG = parse_label_config(brush_config("wine", "blue"), None)
TAG = CONFIG.images[0].name
FLAG = flag("red", "white", "blue")  # 20 columns each


@pytest.fixture
def segmenter() -> ColourSegmenter:
    return ColourSegmenter(words_known=False)


@pytest.fixture
def predictor(segmenter: ColourSegmenter) -> MaskPredictor:
    return MaskPredictor(colour_engine(segmenter), Settings(), CONFIG, project=7)


def test_a_mask_is_there_for_each_label_that_is_seen(predictor: MaskPredictor) -> None:
    (found,) = predictor.predict(TAG, FLAG).items()
    assert found[0] == 1
    assert np.array_equal(found[1], np.broadcast_to(np.arange(60) >= 40, (40, 60)))


def test_what_was_learned_is_followed(predictor: MaskPredictor) -> None:
    label_map = predictor.predict_map(TAG, FLAG, adaptation=teach(wine="red"))
    assert label_map.dtype == np.int16
    assert [label_map[0, column] for column in (0, 30, 59)] == [0, -1, 1]


def test_other_words_are_tried_in_place_of_the_labels_own(predictor: MaskPredictor) -> None:
    words = CONFIG.labels_of(TAG)
    tried = [type(each)(each.name, ("red",)) if each.name == "wine" else each for each in words]
    assert set(predictor.predict(TAG, FLAG, labels=tried)) == {0, 1}


def test_a_picture_is_encoded_once_for_both_ways(
    predictor: MaskPredictor, segmenter: ColourSegmenter
) -> None:
    image = predictor.engine.segmenter().prepare(FLAG)
    plain, propagated = predictor.predict_propagated(TAG, image, FLAG, teach(wine="red"))
    assert segmenter.encoded == [(60,)]
    assert np.array_equal(plain, propagated), "the stand-in propagates nothing"
