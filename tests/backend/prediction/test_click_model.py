"""Answers of a click model, from the request to the region that the editor gets."""

from pathlib import Path

import numpy as np
import pytest

from backend.inference.engine import Engine
from backend.settings import Settings
from clearclip_core import Point, Segmenter
from tests.backend.fakes.click_model import HalfModel
from tests.backend.fakes.colour_segmenter import ColourSegmenter, colour_engine, flag
from tests.backend.prediction.annotator import (
    CONFIG,
    Annotator,
    keypoint,
    mask_of,
    rectangle,
    textarea,
)
from tests.core.conftest import picture
from tests.core.prompting.click_models import write_click_model

#: The left half is red, the right half blue.
IMAGE = flag("red", "blue", size_hw=(40, 80))


@pytest.fixture
def annotator() -> Annotator:
    segmenter = ColourSegmenter()
    segmenter.click_model = HalfModel()
    return Annotator(colour_engine(segmenter))


def columns(width: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.broadcast_to(np.arange(80) < width, (40, 80))


def test_of_the_three_masks_of_a_click_that_of_the_label_is_drawn(annotator: Annotator) -> None:
    found = annotator.mask(IMAGE, keypoint(10, 50, label="red"))
    assert np.array_equal(found, columns(40))


def test_the_same_click_again_asks_for_the_next_size(annotator: Annotator) -> None:
    click, near = keypoint(10, 50, label="red"), keypoint(10.2, 50.2, label="red")
    widths = (20, 80, 40)  # after the likeliest come two others, and then that one again
    for again, width in enumerate(widths, start=1):
        found = annotator.mask(IMAGE, click, *[near] * again)
        assert np.array_equal(found, columns(width)), again


def test_a_size_stays_chosen_while_other_clicks_correct_it(annotator: Annotator) -> None:
    click, other = keypoint(10, 50, label="red"), keypoint(30, 50, label="red", positive=False)
    assert np.array_equal(annotator.mask(IMAGE, click, click, other), columns(20))
    assert np.array_equal(annotator.mask(IMAGE, click, other, other), columns(40)), "not the same"


def test_where_the_label_is_not_at_the_click_the_model_chooses(annotator: Annotator) -> None:
    found = annotator.mask(IMAGE, keypoint(10, 50, label="blue"))
    assert np.array_equal(found, columns(20))


def test_a_box_cuts_off_what_the_model_finds_beyond_it(annotator: Annotator) -> None:
    found = annotator.mask(IMAGE, rectangle(25, 0, 50, 100))
    assert np.array_equal(found, columns(40) & ~columns(20))


def test_words_and_predictions_ask_the_click_model_nothing() -> None:
    segmenter = ColourSegmenter()
    segmenter.click_model = model = HalfModel()
    annotator = Annotator(colour_engine(segmenter))
    annotator.predicted(IMAGE)
    annotator.asks(IMAGE, textarea("red"))
    assert not model.log
    annotator.asks(IMAGE, keypoint(10, 50))
    assert model.log == [80]


def regions_annotator(*shares: float) -> Annotator:
    segmenter = ColourSegmenter()
    segmenter.click_model = model = HalfModel()
    object.__setattr__(model, "regions", shares)
    return Annotator(colour_engine(segmenter), regions=True, click_model="halves")


def test_pixels_of_a_region_get_the_label_that_most_of_them_have() -> None:
    red, blue = regions_annotator(0.75).predicted(IMAGE)
    assert np.array_equal(mask_of(red), columns(60))
    assert np.array_equal(mask_of(blue), ~columns(60))


@pytest.mark.parametrize(("attribute", "count"), [("", 1), ('prelabel_instances="yes"', 2)])
def test_things_of_a_label_are_regions_of_their_own_where_that_is_asked(
    attribute: str, count: int
) -> None:
    config = CONFIG.replace('name="mask"', f'name="mask" {attribute}')
    found = regions_annotator(0.25, 0.5).predicted(IMAGE, config)
    red = [mask_of(each) for each in found if each["value"]["brushlabels"] == ["red"]]
    assert len(red) == count
    assert np.array_equal(np.logical_or.reduce(red), columns(40))
    assert sum(int(mask.sum()) for mask in red) == 40 * 40, "none twice"
    assert len({each["id"] for each in found}) == len(found)


def test_regions_need_a_click_model() -> None:
    with pytest.raises(ValueError, match="CLICK_MODEL"):
        Settings(regions=True)


def test_versions_of_predictions_do_not_depend_on_the_click_model() -> None:
    """Else another click model would have all tasks predicted again."""
    versions = []
    for name in (None, "./sam2"):
        annotator = Annotator(click_model=name)
        body = {"project": "1.7", "schema": CONFIG, "hostname": "", "access_token": ""}
        versions.append(annotator.client.post("/setup", json=body).get_json()["model_version"])
    assert versions[0] == versions[1]


def test_a_served_model_of_transformers_answers_as_the_library(tmp_path: Path) -> None:
    folder, image = write_click_model("sam2", tmp_path), picture(60, 90)
    settings = Settings(model="demo", device="cpu", precision="fp32", click_model=str(folder))
    config = (
        '<View><Image name="image" value="$image"/>'
        '<BrushLabels name="mask" toName="image"><Label value="red"/></BrushLabels>'
        '<KeyPointLabels name="click" toName="image" smart="true"><Label value="red"/>'
        "</KeyPointLabels></View>"
    )
    with Engine.from_settings(settings, answers_clicks=True) as engine:
        found = Annotator(engine).mask(
            image,
            keypoint(50, 50),
            keypoint(20, 30),
            keypoint(90, 90, positive=False),
            config=config,
        )
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32", click_model=str(folder))
    predictor = segmenter.set_image(image, ["red"])
    expected = predictor.click((45, 30), (18, 18), Point(81, 54, positive=False), label="red").mask
    assert np.mean(found != expected) < 0.001  # what is cached is rounded to float16
    assert 0 < expected.mean() < 1
