"""What clicks, boxes and words mean, from the request to the regions that the editor gets."""

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.label_studio.prompts import Phrase, Phrases, read_words
from backend.label_studio.region_reader import area_mask, drawn_areas
from backend.prediction.masks import competing_labels, segment_phrases
from clearclip_core import Label, Segmentation
from tests.backend.fakes.colour_segmenter import data_url, flag
from tests.backend.prediction.annotator import (
    BRUSH,
    CENTRE,
    CONFIG,
    IMAGE,
    LABELS,
    STREET,
    TWO,
    Annotator,
    config_of,
    keypoint,
    mask_of,
    of_colour,
    painted,
    rectangle,
    textarea,
)
from tests.e2e.masks import iou

# Clicks and boxes: geometry


def test_what_is_clicked_counts_not_what_would_be_predicted(annotator: Annotator) -> None:
    """The label says "blue", the click is on the red box."""
    (region,) = annotator.asks(TWO, keypoint(*CENTRE, label="blue"))
    assert region["value"]["brushlabels"] == ["blue"]
    assert iou(mask_of(region), of_colour(TWO, "red")) > 0.9


def test_points_add_up_and_a_negative_one_is_outside(annotator: Annotator) -> None:
    image = painted((120, 200), red=(20, 30, 80, 100), white=(120, 20, 190, 70))
    one = annotator.mask(image, keypoint(*CENTRE))
    two = annotator.mask(image, keypoint(*CENTRE), keypoint(75, 40))
    assert two[60, 50]
    assert two[45, 155]
    assert not one[45, 155]
    without = annotator.mask(flag("red"), keypoint(25, 50), keypoint(75, 50, positive=False))
    assert without[20, 15]
    assert not without[20, 45]


@pytest.mark.parametrize(
    ("size_hw", "orientation", "tool"),
    [
        ((120, 200), 1, "click"),
        ((120, 200), 3, "box"),
        ((200, 90), 6, "click"),
        ((100, 100), 8, "box"),
    ],
)
def test_percent_are_of_the_upright_picture(
    annotator: Annotator, size_hw: tuple[int, int], orientation: int, tool: str
) -> None:
    height, width = size_hw
    box = width // 10, height // 2, width // 2, height * 9 // 10
    upright = painted(size_hw, red=box)
    stored = {1: upright, 3: np.rot90(upright, 2), 6: np.rot90(upright), 8: np.rot90(upright, -1)}
    x, y = (box[0] + box[2]) / 2 / width * 100, (box[1] + box[3]) / 2 / height * 100
    prompt = keypoint(x, y) if tool == "click" else rectangle(x - 28, y - 28, 56, 56)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (region,) = annotator.asks(data_url(stored[orientation], exif=exif), prompt)
    assert (region["original_height"], region["original_width"]) == size_hw
    assert iou(mask_of(region), of_colour(upright, "red")) > 0.85


@pytest.mark.parametrize("rotation", [0.0, 30.0, -45.0, 200.0])
def test_a_box_has_nothing_outside(annotator: Annotator, rotation: float) -> None:
    """Each pixel is turned back about the corner, and compared with the box as it was."""
    image = flag("red", size_hw=(100, 160))
    x_px, y_px, width_px, height_px = 80, 50, 48, 20
    mask = annotator.mask(image, rectangle(50, 50, 30, 20, rotation=rotation))
    angle = math.radians(rotation)
    rows, columns = np.mgrid[:100, :160] + 0.5
    along = (columns - x_px) * math.cos(angle) + (rows - y_px) * math.sin(angle)
    down = (rows - y_px) * math.cos(angle) - (columns - x_px) * math.sin(angle)
    outside = (along < -1) | (along > width_px + 1) | (down < -1) | (down > height_px + 1)
    assert mask.any()
    assert not (mask & outside).any()


# Contexts that ask for nothing, or for what there is not


@pytest.mark.parametrize(
    "context",
    [
        [],
        [{"type": "brushlabels", "value": {"brushlabels": ["red"], "rle": []}}],
        [keypoint(50, 100.1)],
        [keypoint(25, 50, positive=False)],
        [keypoint(25, 50, label="unknown")],
        [keypoint(25, 50, to_name="other")],
        [rectangle(20, 20, 0, 0)],
        [rectangle(50.1, 50.1, 0, 0, rotation=30)],
        [rectangle(50, 50, 10, 0, rotation=90)],
        [rectangle(0, 50, 30, 30, rotation=180)],
        [rectangle(-40, -40, 30, 30)],
        [textarea(",  ,")],
        [textarea("green")],
    ],
    ids=str,
)
def test_nothing_is_answered_where_there_is_nothing(annotator: Annotator, context: Any) -> None:
    assert annotator.asks(TWO, *context) == []


@pytest.mark.parametrize("corner", [(0, 0), (100, 100)])
def test_the_edge_belongs_to_the_picture(annotator: Annotator, corner: tuple[float, float]) -> None:
    image = flag("red", size_hw=(40, 60))
    assert annotator.mask(image, keypoint(*corner)).mean() > 0.9


@pytest.mark.parametrize(
    ("tag", "outputs"),
    [("BrushLabels", ["mask", "bbox", "polygon"]), ("PolygonLabels", ["polygon"])],
)
def test_capabilities_name_what_is_asked_with_and_drawn(tag: str, outputs: list[str]) -> None:
    config = config_of(f'<{tag} name="mask" toName="image">{LABELS}</{tag}>')
    region = Annotator(model="demo").tells("capabilities", config)["result"][0]
    assert (region["type"], region["value"]["prompts"]) == ("capabilities", ["point", "box"])
    assert [target["output"] for target in region["value"]["targets"]] == outputs
    assert region["value"]["model_info"] == {"name": "ClearCLIP", "version": "demo clearclip"}


@pytest.mark.parametrize("event", ["track", "something new"])
def test_other_events_are_answered_with_an_empty_result(annotator: Annotator, event: str) -> None:
    assert annotator.tells(event, CONFIG, keypoint(*CENTRE)) == {"result": []}


# Prompts without a label: the words say which it is


def unlabelled(prompt: dict[str, Any]) -> dict[str, Any]:
    """As the editor sends it where no label is selected."""
    kind = prompt["type"].removesuffix("labels")
    value = {key: each for key, each in prompt["value"].items() if key != prompt["type"]}
    return {**prompt, "type": kind, "value": value | {"labels": []}}


@pytest.mark.parametrize(
    ("prompt", "label"),
    [
        (keypoint(*CENTRE), "red"),
        (keypoint(77, 37), "blue"),
        (rectangle(5, 15, 40, 75), "red"),
        (rectangle(55, 10, 45, 55), "blue"),
    ],
)
def test_without_a_selected_label_the_words_name_what_is_meant(
    annotator: Annotator, prompt: dict[str, Any], label: str
) -> None:
    (region,) = annotator.asks(TWO, unlabelled(prompt))
    assert region["value"]["brushlabels"] == [label]
    assert iou(mask_of(region), of_colour(TWO, label)) > 0.8


def test_further_clicks_without_a_label_keep_the_first_ones(annotator: Annotator) -> None:
    clicks = [unlabelled(keypoint(*at)) for at in (CENTRE, (77, 37))]
    (region,) = annotator.asks(TWO, *clicks)
    assert region["value"]["brushlabels"] == ["red"]


@pytest.mark.parametrize("corner", [(0, 0), (100, 100)])
def test_an_edge_without_a_label_has_one(annotator: Annotator, corner: tuple[float, float]) -> None:
    image = flag("blue", size_hw=(40, 60))
    (region,) = annotator.asks(image, unlabelled(keypoint(*corner)))
    assert region["value"]["brushlabels"] == ["blue"]


# Which control answers, and in what form


@pytest.mark.parametrize(
    ("tag", "prompt"),
    [
        ("BrushLabels", keypoint(*CENTRE)),
        ("BitmaskLabels", rectangle(5, 15, 40, 75)),
        ("PolygonLabels", textarea("red")),
        ("RectangleLabels", keypoint(*CENTRE)),
    ],
)
def test_controls_answer_in_their_own_form(annotator: Annotator, tag: str, prompt: Any) -> None:
    control, kind = f'<{tag} name="mask" toName="image">{LABELS}</{tag}>', tag.lower()
    (region,) = annotator.asks(TWO, prompt, config=config_of(control))
    assert (region["type"], region["from_name"]) == (kind, "mask")
    assert region["value"][kind] == ["red"]
    (area,) = drawn_areas([region])
    assert iou(area_mask(area), of_colour(TWO, "red")) > 0.9


def test_aliases_are_read_and_written(annotator: Annotator) -> None:
    config = (
        f'<View>{IMAGE}<BrushLabels name="mask" toName="image"><Label value="red" alias="R"/>'
        '<Label value="blue"/></BrushLabels><KeyPointLabels name="click" toName="image" '
        'smart="true"><Label value="red" alias="rouge"/></KeyPointLabels></View>'
    )
    for written in ("R", "red", "rouge"):
        (region,) = annotator.asks(TWO, keypoint(*CENTRE, label=written), config=config)
        assert region["value"]["brushlabels"] == ["R"]


def test_the_least_score_of_a_label_is_not_asked_of_an_answer(annotator: Annotator) -> None:
    control = BRUSH.replace('name="mask"', 'name="mask" model_score_threshold="1"')
    assert annotator.asks(TWO, keypoint(*CENTRE), config=config_of(control))


def test_an_answer_stays_on_its_image(annotator: Annotator) -> None:
    config = (
        '<View><Image name="one" value="$one"/><Image name="two" valueList="$two"/>'
        '<BrushLabels name="a" toName="one"><Label value="red"/></BrushLabels>'
        '<BrushLabels name="b" toName="two"><Label value="red"/><Label value="blue"/>'
        '</BrushLabels><TextArea name="words" toName="two"/></View>'
    )
    data = {"one": data_url(TWO), "two": [data_url(TWO), data_url(TWO)]}
    places = {}
    for name, prompt in {
        "second": keypoint(*CENTRE, to_name="two", item_index=1),
        "first": keypoint(*CENTRE, to_name="two"),
        "other": keypoint(*CENTRE, to_name="one"),
        "unsaid": keypoint(*CENTRE, label="blue", to_name=None),
        "words": textarea("red") | {"to_name": "two"},
    }.items():
        regions = annotator.asks("", prompt, config=config, data=data)
        places[name] = [(region["to_name"], region.get("item_index")) for region in regions]
    first, second = ("two", 0), ("two", 1)
    clicks = {"second": [second], "first": [first], "other": [("one", None)], "unsaid": [first]}
    assert places == clicks | {"words": [first, second]}


# Words


def test_phrases_compete_and_join(annotator: Annotator) -> None:
    config = config_of(BRUSH.replace('<Label value="red"/>', ""))
    (region,) = annotator.asks(TWO, textarea("red, blue"), config=config)
    assert np.array_equal(mask_of(region), of_colour(TWO, "red") | of_colour(TWO, "blue"))
    two = annotator.asks(TWO, textarea("a red thing -> blue, navy -> red"))
    assert [region["value"]["brushlabels"] for region in two] == [["blue"], ["red"]]
    assert np.array_equal(mask_of(two[0]), of_colour(TWO, "red"))


def test_masks_of_phrases_have_no_specks() -> None:
    label_map = np.zeros((9, 9), np.int16)
    label_map[:, 5:] = 1  # both phrases are for one label
    label_map[2, 2] = 3  # a hole of another label
    label_map[6:, 7:] = 2
    label_map[4, 1] = 2  # an island
    confidence = np.linspace(0, 1, 81).astype(np.float16).reshape(9, 9)
    segmentation = Segmentation(label_map, confidence, ("0", "1", "2", "3"))
    one, two = Label("one"), Label("two")
    phrases = Phrases((Phrase(("a",), one), Phrase(("b",), one), Phrase(("c",), two)))
    first, second = segment_phrases(phrases, segmentation, min_px=3)
    assert (first.label, second.label) == ("one", "two")
    third = np.zeros((9, 9), np.bool_)
    third[6:, 7:] = True
    assert np.array_equal(first.mask.to_mask(), ~third)
    assert np.array_equal(second.mask.to_mask(), third)
    mean = confidence[third].mean(dtype=np.float64)
    assert second.mean_confidence == pytest.approx(mean, rel=1e-12)


def test_all_gets_a_prediction_and_no_answer_replaces_a_region(annotator: Annotator) -> None:
    """The editor puts regions in their places by id."""
    predicted, asked = annotator.predicted(TWO), annotator.asks(TWO, textarea("all"))
    clicked = [annotator.asks(TWO, keypoint(*CENTRE))[0] for _ in range(2)]
    ids = [region.pop("id") for region in (*predicted, *asked, *clicked)]
    assert len(set(ids)) == len(ids) == 6
    assert asked == predicted


@pytest.mark.parametrize(
    ("text", "competing"),
    [
        ("red car, lamp -> tl", ["words 0", "words 1", "Veg", "background"]),
        ("red car -> Veg", ["words 0", "TrafficLight", "background"]),
        ("Veg", ["Veg", "Car", "TrafficLight", "background"]),  # what it has learned counts
    ],
)
def test_labels_that_words_name_are_no_rivals(text: str, competing: list[str]) -> None:
    phrases = read_words(text, STREET, STREET.labels_of("image"), "")
    assert [label.name for label in competing_labels(phrases, STREET.labels)] == competing
