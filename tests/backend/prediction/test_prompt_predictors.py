"""Predictors that are kept from one prompt to the next, for as long as nothing has changed."""

import numpy as np

from backend.inference.encoded_image import EncodedImage
from backend.prediction.prompt_predictors import PromptPredictors
from clearclip_core import Adaptation, RGBArray, Vocabulary
from tests.backend.fakes.colour_segmenter import ColourSegmenter, flag, teach


def encoded(image: RGBArray, *labels: str, adaptation: Adaptation | None = None) -> EncodedImage:
    segmenter = ColourSegmenter()
    (features,) = segmenter.encode_batch([segmenter.prepare(image)], 1)
    scores = segmenter.score(features, Vocabulary.of(labels), True, adaptation)
    return EncodedImage.of(features, scores)


def test_the_next_prompt_on_a_picture_finds_it_ready() -> None:
    predictors, image = PromptPredictors(1 << 30), flag("red", "blue")
    first = predictors.of(encoded(image, "red"), image, "digest")
    assert predictors.of(encoded(image, "red"), image, "digest") is first


def test_other_words_a_new_version_and_another_picture_are_made_ready_anew() -> None:
    predictors, image = PromptPredictors(1 << 30), flag("red", "blue")
    taught = encoded(image, "red", adaptation=teach(red="blue"))
    other = image.copy()  # it may differ where the model, which sees it smaller, does not look
    given = [
        (encoded(image, "red"), image),
        (encoded(image, "blue"), image),
        (taught, image),
        (taught, other),
    ]
    made = [predictors.of(own, rgb, "digest") for own, rgb in given]
    assert len({id(predictor) for predictor in made}) == len(given)
    assert np.array_equal(made[2].scores.cosines, taught.scores.cosines)


def test_few_are_kept_and_none_where_there_is_no_room() -> None:
    image = flag("red", "blue")
    own = encoded(image, "red")
    for most_bytes, is_kept in ((40 << 20, True), (0, False)):
        predictors = PromptPredictors(most_bytes)
        first = predictors.of(own, image, "0")
        assert (predictors.of(own, image, "0") is first) is is_kept
        for number in range(1, 3):
            predictors.of(own, image, f"{number}")
        assert predictors.of(own, image, "0") is not first
