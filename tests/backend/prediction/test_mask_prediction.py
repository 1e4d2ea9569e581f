"""Masks of labels: one at a time, cleaned, refined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend.label_studio.requests import Context, Keypoint, Prompt
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from clearclip_core import RGBArray, ScoreOptions, Segmentation
from tests.backend.fakes.colour_segmenter import ColourSegmenter, brush_config, colour_engine, flag
from tests.backend.prediction.test_predictor import (
    IMAGES,
    make_predictor,
    mask_of,
    read_image,
    request,
)


def test_unlikely_pixels_are_left_out_for_each_control_and_label() -> None:
    config = (
        '<View><Image name="image" value="$image"/>'
        '<BrushLabels name="strict" toName="image" model_score_threshold="0.6">'
        '<Label value="white"/><Label value="blue" model_score_threshold="0.1"/></BrushLabels>'
        '<PolygonLabels name="lax" toName="image"><Label value="white"/></PolygonLabels></View>'
    )
    (entry,) = make_predictor().predict(request(config, "flag"))
    assert isinstance(entry, dict)
    white, blue, polygon = entry["result"]
    assert mask_of(white).sum() == 40 * 10  # only the half that is 0.75 sure
    assert mask_of(blue).sum() == 40 * 20
    assert polygon["from_name"] == "lax"
    xs = [x for x, _ in polygon["value"]["points"]]
    assert (min(xs), max(xs)) == pytest.approx((100 / 3, 200 / 3), abs=0.01)


class CertainSegmenter(ColourSegmenter):
    """Is sure of each pixel, as a model is whose probability is rounded to 1."""

    def decide(self, scores: Any, *, image: RGBArray, **how: bool) -> Segmentation:
        made = super().decide(scores, image=image, **how)
        return replace(made, confidence=np.ones_like(made.confidence))


def test_a_threshold_of_one_is_never_reached() -> None:
    labels = '<Label value="red"/><Label value="blue" model_score_threshold="0.9"/>'
    controls = "".join(
        f'<{kind} name="{kind}" toName="image" model_score_threshold="1">{labels}</{kind}>'
        for kind in ("BrushLabels", "BitmaskLabels", "PolygonLabels", "RectangleLabels")
    )
    config = f'<View><Image name="image" value="$image"/>{controls}</View>'
    predictor = Predictor(colour_engine(CertainSegmenter()), read_image, Settings())
    (entry,) = predictor.predict(request(config, "flag"))
    assert isinstance(entry, dict)
    drawn = [(region["from_name"], region["value"][region["type"]]) for region in entry["result"]]
    kinds = ("BrushLabels", "BitmaskLabels", "PolygonLabels", "RectangleLabels")
    assert drawn == [(kind, ["blue"]) for kind in kinds]


def test_specks_are_dropped_and_pinholes_filled() -> None:
    image = flag("red", size_hw=(100, 100))
    image[10, 10] = image[50, 50] = 0  # two pinholes
    image[:, 60:] = 0
    image[80, 80] = (255, 0, 0)  # a speck
    IMAGES["specks"] = image
    predictor = make_predictor(min_island_share=0.001)  # 10 px
    (entry,) = predictor.predict(request(brush_config("red"), "specks"))
    assert isinstance(entry, dict)
    expected = np.zeros((100, 100), bool)
    expected[:, :60] = True
    assert np.array_equal(mask_of(entry["result"][0]), expected)


def test_islands_are_dropped_before_holes_are_filled() -> None:
    """As in the library: an island in a hole would else make two of it."""
    image = flag("red", size_hw=(100, 100))
    image[40:60, 40:60] = 0
    image[49:51, 49:51] = (255, 0, 0)
    IMAGES["ring"] = image
    predictor = make_predictor(min_island_share=0.0397)  # 397 px: the hole has 396, or 400
    (entry,) = predictor.predict(request(brush_config("red"), "ring"))
    assert isinstance(entry, dict)
    assert not mask_of(entry["result"][0])[40:60, 40:60].any()


@pytest.mark.parametrize(("refine", "propagate"), [(True, False), (False, True)])
def test_masks_are_refined_as_the_settings_say(refine: bool, propagate: bool) -> None:
    segmenter = ColourSegmenter()
    asked = []
    decide = segmenter.decide

    def spy(scores: Any, *, image: RGBArray, refine: bool, propagate: bool) -> Any:
        asked.append((refine, propagate, image.shape))
        return decide(scores, image=image, refine=refine, propagate=propagate)

    segmenter.decide = spy  # type: ignore[method-assign]
    settings = Settings(refine=refine, propagate=propagate)
    predictor = Predictor(colour_engine(segmenter), read_image, settings)
    predictor.predict(request(brush_config("red"), "wide"))
    assert asked == [(refine, propagate, (10, 200, 3))]


def test_scores_follow_the_presence_prior_of_the_project() -> None:
    segmenter = ColourSegmenter()
    predictor = Predictor(colour_engine(segmenter), read_image, Settings(presence=0.2))
    predictor.predict(request(brush_config("red"), "flag"))
    assert segmenter.options == ScoreOptions(presence=0.2)
    predictor.predict(request(brush_config("red", attributes='presence="0.1"'), "flag"))
    assert segmenter.options == ScoreOptions(presence=0.1)


def test_predictions_are_filtered_and_what_an_annotator_asks_for_is_not() -> None:
    segmenter = ColourSegmenter()
    settings = Settings(presence=0.2)
    predictor = Predictor(colour_engine(segmenter), read_image, settings)
    predictor.predict(request(brush_config("red"), "flag"))
    assert segmenter.options == ScoreOptions(presence=0.2)
    click = Context((Prompt(Keypoint(10, 50), ("red",)),))
    predictor.predict(request(brush_config("red"), "flag", context=click))
    assert segmenter.options == ScoreOptions(presence=0.2)
