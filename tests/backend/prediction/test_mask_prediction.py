"""Masks of labels: thresholds, islands and holes, refinement; and the scores for sorting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend.inference.encoded_image import EncodedImage
from backend.inference.engine import Engine
from backend.label_studio.prompts import Context, Prompt
from backend.label_studio.requests import Task
from backend.prediction import masks
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from clearclip_core import HELD_OUT_SEEDS, Label, RGBArray, Segmentation, Segmenter, render_scene
from clearclip_core.evaluation.comparison import Candidate, predict_all
from tests.backend.fakes.colour_segmenter import ColourSegmenter, brush_config, colour_engine, flag
from tests.backend.prediction.annotator import mask_of, request_for
from tests.backend.prediction.test_predictor import (
    CLICK,
    IMAGES,
    make_predictor,
    predicted,
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
    entry = predicted(request(config, "flag"))
    white, blue, polygon = entry["result"]
    assert entry["score"] == (0.625 + 0.5) / 2, "of each label's largest mask"
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
    kinds = ("BrushLabels", "BitmaskLabels", "PolygonLabels", "RectangleLabels")
    labels = '<Label value="red"/><Label value="blue" model_score_threshold="0.9"/>'
    controls = "".join(
        f'<{kind} name="{kind}" toName="image" model_score_threshold="1">{labels}</{kind}>'
        for kind in kinds
    )
    config = f'<View><Image name="image" value="$image"/>{controls}</View>'
    predictor = Predictor(colour_engine(CertainSegmenter()), read_image, Settings())
    entry = predicted(request(config, "flag"), predictor)
    drawn = [(region["from_name"], region["value"][region["type"]]) for region in entry["result"]]
    assert drawn == [(kind, ["blue"]) for kind in kinds]


def test_specks_are_dropped_before_pinholes_are_filled() -> None:
    """As in the library: an island in a hole would else make two of it."""
    image = flag("red", size_hw=(100, 100))
    image[10, 10] = image[50, 50] = 0  # two pinholes
    image[:, 60:] = 0
    image[80, 80] = (255, 0, 0)  # a speck
    IMAGES["specks"] = image
    predictor = make_predictor(min_island_share=0.001)  # 10 px
    (region,) = predicted(request(brush_config("red"), "specks"), predictor)["result"]
    expected = np.zeros((100, 100), bool)
    expected[:, :60] = True
    assert np.array_equal(mask_of(region), expected)
    image = flag("red", size_hw=(100, 100))
    image[40:60, 40:60] = 0
    image[49:51, 49:51] = (255, 0, 0)
    IMAGES["ring"] = image
    predictor = make_predictor(min_island_share=0.0397)  # 397 px: the hole has 396, or 400
    (region,) = predicted(request(brush_config("red"), "ring"), predictor)["result"]
    assert not mask_of(region)[40:60, 40:60].any()


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


@pytest.mark.parametrize("context", [None, CLICK])
def test_all_work_on_an_encoded_image_is_on_the_stream_of_its_thread(
    context: Context | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    @contextmanager
    def own_stream(_: EncodedImage) -> Iterator[None]:
        log.append("begin")
        yield
        log.append("end")

    monkeypatch.setattr(EncodedImage, "own_stream", own_stream)
    for owner, name in (
        (ColourSegmenter, "decide"),
        (masks.PromptPredictor, "click"),
        (masks, "draw_regions"),
        (masks.Uncertainty, "of"),
    ):
        monkeypatch.setattr(owner, name, noted(getattr(owner, name), log, name))
    predictor = Predictor(colour_engine(), read_image, Settings())
    config = brush_config("red", attributes='score="effort"')
    predictor.predict(request(config, "flag", context=context))
    work = ["click", "draw_regions"] if context else ["decide", "draw_regions", "of"]
    assert log == ["begin", *work, "end"]


def noted(function: Callable[..., Any], log: list[str], name: str) -> Callable[..., Any]:
    def note(*given: Any, **options: Any) -> Any:
        log.append(name)
        return function(*given, **options)

    return note


def scored(score: str, config: str, **data: object) -> float:
    return float(predicted(request_for(config, Task(1, 1, data), score=score))["score"])


def test_predictions_may_be_sorted_by_what_is_open_about_a_picture() -> None:
    """White fits no word: red, blue and the contrast words are a third each on a third of it."""
    config = brush_config("blue", "red")
    assert scored("uncertainty", config, image="flag") == pytest.approx(1 / 3, abs=1e-6)
    assert scored("effort", config, image="flag") == pytest.approx(2 / 9, abs=1e-6)
    assert scored("uncertainty", config, image="red") == 0
    # Below its threshold nothing is drawn; and that nothing is there is as unlikely.
    picky = brush_config("blue", "white", "red", attributes='model_score_threshold="0.9"')
    assert scored("effort", picky, image="flag") == pytest.approx(0, abs=1e-6)
    # A project has its own choice.
    own = brush_config("blue", "red", attributes='score="effort"')
    assert scored("uncertainty", own, image="flag") == pytest.approx(2 / 9, abs=1e-6)
    plain = brush_config("blue", "red", attributes='score="confidence"')
    assert scored("effort", plain, image="flag") == pytest.approx((0.5 + 0.75) / 2)


def test_all_pictures_of_a_task_count_by_their_pixels() -> None:
    config = (
        '<View><Image name="many" valueList="$pages"/>'
        '<BrushLabels name="m" toName="many"><Label value="red"/></BrushLabels></View>'
    )
    # Of 2400 pixels a third is red, of 2000 a half; the others are as likely a contrast word.
    expected = (2400 * 2 / 3 + 2000 / 2) / 4400
    pages = ["flag", "wide"]
    assert scored("uncertainty", config, pages=pages) == pytest.approx(expected, abs=1e-6)
    assert scored("effort", config, pages=pages) == pytest.approx(expected / 2, abs=1e-6)


def test_the_answer_to_a_prompt_keeps_its_confidence() -> None:
    ask = Context((Prompt("red", image="image"),))
    for score in ("confidence", "effort"):
        asked = request(brush_config("blue", "red"), "flag", context=ask, score=score)
        assert predicted(asked)["score"] == 0.75


# `clearclip eval --images` measures what the backend draws

NAMES = ("sky", "grass", "tree", "house", "other")


def test_masks_are_those_of_the_backend_at_its_default_settings() -> None:
    IMAGES["scene"] = image = render_scene(HELD_OUT_SEEDS[3], (192, 256)).image
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32")
    engine = Engine(lambda: segmenter, lambda: "demo")
    engine.start()
    try:
        predictor = Predictor(engine, read_image, Settings())
        (entry,) = predictor.predict(request(brush_config(*NAMES), "scene"))
    finally:
        engine.stop()
    assert isinstance(entry, dict)
    drawn = {region["value"]["brushlabels"][0]: mask_of(region) for region in entry["result"]}
    labels = tuple(Label(name, background=name == "other") for name in NAMES)
    ((made, _),) = predict_all([Candidate(segmenter, labels, "demo", "")], image)
    assert {NAMES[index] for index in made} == set(drawn)
    assert len(drawn) >= 3
    for index, mask in made.items():
        assert np.array_equal(mask, drawn[NAMES[index]])
