"""What clicks, boxes and words mean, from the request to the regions that the editor gets."""

from __future__ import annotations

import base64
import io
import logging
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from flask.testing import FlaskClient
from label_studio_sdk.converter.brush import decode_rle, mask2rle
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image
from scipy.sparse.csgraph import dijkstra

from backend import create_app
from backend.inference.engine import Engine
from backend.inference.feature_cache import FeatureCache
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.region_reader import area_mask, drawn_areas
from backend.label_studio.requests import Context, Keypoint, Prompt, Rectangle, Task, Words
from backend.prediction import interactive as module
from backend.prediction.interactive import competing_labels
from backend.prediction.prompt_parser import Boxes, Clicks, Phrases, parse_prompt, read_words
from backend.settings import Settings
from clearclip_core import SCENE_LABELS, Label, RGBArray, Segmenter, render_scene
from tests.backend.fakes.colour_segmenter import RGB, ColourSegmenter, colour_engine, data_url, flag

Mask = npt.NDArray[np.bool_]

LABELS = '<Label value="red"/><Label value="blue"/>'
TOOLS = (
    f'<KeyPointLabels name="click" toName="image" smart="true">{LABELS}</KeyPointLabels>'
    f'<RectangleLabels name="box" toName="image" smart="true">{LABELS}</RectangleLabels>'
    '<TextArea name="words" toName="image"/>'
)
IMAGE = '<Image name="image" value="$image"/>'
BRUSH = f'<BrushLabels name="mask" toName="image">{LABELS}</BrushLabels>'
CONFIG = f"<View>{IMAGE}{BRUSH}{TOOLS}</View>"


def config_of(*controls: str) -> str:
    return f"<View>{IMAGE}{''.join(controls)}{TOOLS}</View>"


def keypoint(
    x: float, y: float, label: str = "red", positive: bool = True, **changes: Any
) -> dict[str, Any]:
    return {
        "id": "k",
        "type": "keypointlabels",
        "from_name": "click",
        "to_name": "image",
        "original_width": 60,
        "original_height": 40,
        "is_positive": positive,
        "value": {"x": x, "y": y, "width": 0.5, "keypointlabels": [label]},
        **changes,
    }


def rectangle(
    x: float, y: float, width: float, height: float, label: str = "red", **value: Any
) -> dict[str, Any]:
    sides = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, **value}
    return {
        "id": "r",
        "type": "rectanglelabels",
        "from_name": "box",
        "to_name": "image",
        "original_width": 60,
        "original_height": 40,
        "value": {**sides, "rectanglelabels": [label]},
    }


def textarea(*texts: str) -> dict[str, Any]:
    place = {"id": "t", "type": "textarea", "from_name": "words", "to_name": "image"}
    return {**place, "value": {"text": list(texts)}}


class Annotator:
    """Asks a served stand-in as Label Studio would."""

    def __init__(self, engine: Engine | None = None, **settings: Any) -> None:
        self.client: FlaskClient = create_app(
            Settings(**{"min_island_share": 0, **settings}), engine or colour_engine()
        ).test_client()

    def asks(
        self,
        image: RGBArray | str,
        *context: Any,
        config: str = CONFIG,
        **task: Any,
    ) -> list[dict[str, Any]]:
        """The regions of the answer."""
        url = image if isinstance(image, str) else data_url(image)
        body = {
            "tasks": [{"id": 1, "project": 1, "data": {"image": url}, **task}],
            "label_config": config,
            "project": "1.7",
            "params": {"context": {"result": list(context)}},
        }
        response = self.client.post("/predict", json=body)
        assert response.status_code == 200
        (entry,) = response.get_json()["results"]
        if "score" in entry:
            assert LabelInterface(config).validate_prediction(entry)
            assert 0 <= entry["score"] <= 1
        return list(entry["result"])

    def mask(self, image: RGBArray | str, *context: Any, **options: Any) -> Mask:
        """The one brush mask of the answer."""
        (region,) = self.asks(image, *context, **options)
        return mask_of(region)


@pytest.fixture
def annotator() -> Annotator:
    return Annotator()


def mask_of(region: dict[str, Any]) -> Mask:
    """Decoded by Label Studio's own converter."""
    flat = np.array(decode_rle(region["value"]["rle"]))
    shape = region["original_height"], region["original_width"], 4
    return flat.reshape(shape)[..., 3] > 127  # type: ignore[no-any-return]


def iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


def painted(size_hw: tuple[int, int], **boxes: tuple[int, int, int, int]) -> RGBArray:
    """Boxes of colours (left, top, right, bottom in px) on black."""
    image = np.zeros((*size_hw, 3), np.uint8)
    for colour, (left, top, right, bottom) in boxes.items():
        image[top:bottom, left:right] = RGB[colour]
    return image


def of_colour(image: RGBArray, colour: str) -> Mask:
    return (image == RGB[colour]).all(axis=-1)  # type: ignore[no-any-return]


TWO = painted((120, 200), red=(20, 30, 80, 100), blue=(120, 20, 190, 70))
CENTRE = 25, 50  # of the red box, in percent


# Clicks and boxes: geometry


def test_a_click_gets_what_it_points_at(annotator: Annotator) -> None:
    mask = annotator.mask(TWO, keypoint(*CENTRE))
    assert iou(mask, of_colour(TWO, "red")) > 0.9


def test_what_is_clicked_counts_not_what_would_be_predicted(annotator: Annotator) -> None:
    """The label says "blue", the click is on the red box."""
    (region,) = annotator.asks(TWO, keypoint(*CENTRE, label="blue"))
    assert region["value"]["brushlabels"] == ["blue"]
    assert mask_of(region)[60, 50]


def test_of_very_many_clicks_the_first_and_the_newest_count(
    annotator: Annotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each walks over the picture once, and the answer is there in a bounded time."""
    walks = []

    def counted(*args: Any, **options: Any) -> Any:
        walks.append(args)
        return dijkstra(*args, **options)

    monkeypatch.setattr("clearclip_core.prompting.geodesic.dijkstra", counted)
    beside = [keypoint(60 + each % 37, each / 10, positive=False) for each in range(1000)]
    mask = annotator.mask(TWO, keypoint(*CENTRE), *beside)
    assert 40 < len(walks) < 60
    assert iou(mask, of_colour(TWO, "red")) > 0.9


def test_points_add_up(annotator: Annotator) -> None:
    image = painted((120, 200), red=(20, 30, 80, 100), white=(120, 20, 190, 70))
    one = annotator.mask(image, keypoint(*CENTRE))
    two = annotator.mask(image, keypoint(*CENTRE), keypoint(75, 40))
    assert two[60, 50]
    assert two[45, 155]
    assert not one[45, 155]


def test_a_negative_point_is_outside(annotator: Annotator) -> None:
    image = flag("red", size_hw=(80, 120))
    both = [keypoint(25, 50), keypoint(75, 50, positive=False)]
    before, after = annotator.mask(image, both[0]), annotator.mask(image, *both)
    assert after[40, 30]
    assert not after[40, 90]
    assert not (after & ~before).any()


def exif_file(image: RGBArray, orientation: int) -> str:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", exif=exif)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("size_hw", [(120, 200), (200, 90), (100, 100)])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("tool", ["click", "box"])
def test_percent_are_of_the_upright_picture(
    annotator: Annotator, size_hw: tuple[int, int], orientation: int, tool: str
) -> None:
    height, width = size_hw
    box = width // 10, height // 2, width // 2, height * 9 // 10
    upright = painted(size_hw, red=box)
    stored = {1: upright, 3: np.rot90(upright, 2), 6: np.rot90(upright), 8: np.rot90(upright, -1)}
    x, y = (box[0] + box[2]) / 2 / width * 100, (box[1] + box[3]) / 2 / height * 100
    prompt = keypoint(x, y) if tool == "click" else rectangle(x - 28, y - 28, 56, 56)
    (region,) = annotator.asks(exif_file(stored[orientation], orientation), prompt)
    assert (region["original_height"], region["original_width"]) == size_hw
    assert iou(mask_of(region), of_colour(upright, "red")) > 0.85


def test_a_box_has_nothing_outside(annotator: Annotator) -> None:
    mask = annotator.mask(TWO, rectangle(5, 10, 20, 80))
    inside = np.zeros(TWO.shape[:2], bool)
    inside[12:108, 10:50] = True
    assert not (mask & ~inside).any()
    assert mask[60, 40]


@pytest.mark.parametrize("rotation", [30.0, -45.0, 90.0, 200.0, 360.0])
def test_a_turned_box_has_nothing_outside(annotator: Annotator, rotation: float) -> None:
    """Each pixel is turned back about the corner, and compared with the box as it was."""
    image = flag("red", size_hw=(100, 160))
    x_px, y_px, width_px, height_px = 80, 50, 48, 20
    mask = annotator.mask(image, rectangle(50, 50, 30, 20, rotation=rotation))
    angle = math.radians(rotation)
    rows, columns = np.mgrid[:100, :160] + 0.5
    along = (columns - x_px) * math.cos(angle) + (rows - y_px) * math.sin(angle)
    down = (rows - y_px) * math.cos(angle) - (columns - x_px) * math.sin(angle)
    slack = 1.0
    outside = (
        (along < -slack) | (along > width_px + slack) | (down < -slack) | (down > height_px + slack)
    )
    assert mask.any()
    assert not (mask & outside).any()


def test_several_boxes_of_a_label_are_one_mask(annotator: Annotator) -> None:
    image = painted((120, 200), red=(20, 30, 80, 100))
    image[40:100, 120:180] = RGB["red"]
    boxes = [rectangle(5, 20, 40, 70), rectangle(55, 20, 40, 75)]
    assert iou(annotator.mask(image, *boxes), of_colour(image, "red")) > 0.85


# Contexts that ask for nothing, or for what there is not


@pytest.mark.parametrize(
    "context",
    [
        [],
        [{"type": "brushlabels", "value": {"brushlabels": ["red"], "rle": []}}],
        [keypoint(-1, 50)],
        [keypoint(50, 100.1)],
        [keypoint(25, 50, positive=False)],
        [keypoint(25, 50, label="unknown")],
        [keypoint(25, 50, to_name="other")],
        [rectangle(20, 20, 0, 0)],
        [rectangle(20, 20, 0, 50)],
        [rectangle(50, 50, 0, 0, rotation=30)],
        [rectangle(50.1, 50.1, 0, 0, rotation=30)],
        [rectangle(50, 50, 10, 0, rotation=90)],
        [rectangle(25, 50, 0, 20, rotation=10)],
        [rectangle(0, 50, 30, 30, rotation=180)],
        [rectangle(120, 20, 30, 30)],
        [rectangle(-40, -40, 30, 30)],
        [rectangle(20, 20, 30, 30, label="unknown")],
        [textarea("")],
        [textarea(",  ,")],
        [textarea("green")],
    ],
    ids=str,
)
def test_nothing_is_answered_where_there_is_nothing(annotator: Annotator, context: Any) -> None:
    assert annotator.asks(TWO, *context) == []


def test_after_submit_the_answer_is_empty_to_the_letter(annotator: Annotator) -> None:
    body = {
        "tasks": [{"id": 1, "data": {"image": "gone"}}],
        "label_config": CONFIG,
        "params": {"context": {"result": []}},
    }
    response = annotator.client.post("/predict", json=body)
    assert response.get_json() == {"results": [{"result": []}]}


@pytest.mark.parametrize("corner", [(0, 0), (100, 100), (100, 0)])
def test_the_edge_belongs_to_the_picture(annotator: Annotator, corner: tuple[float, float]) -> None:
    image = flag("red", size_hw=(40, 60))
    assert annotator.mask(image, keypoint(*corner)).mean() > 0.9


def test_points_beside_the_picture_cost_no_other(annotator: Annotator) -> None:
    context = [keypoint(*CENTRE), keypoint(130, 50)]
    assert iou(annotator.mask(TWO, *context), annotator.mask(TWO, context[0])) == 1


def test_a_box_that_reaches_out_is_cut_off(annotator: Annotator) -> None:
    mask = annotator.mask(TWO, rectangle(-20, -20, 65, 140))
    assert mask[60, 50]
    assert not mask[:, 90:].any()


def test_sizes_may_be_missing_or_wrong(annotator: Annotator) -> None:
    click = keypoint(*CENTRE, original_width=None, original_height="x")
    assert iou(annotator.mask(TWO, click), of_colour(TWO, "red")) > 0.9


def test_a_picture_that_is_gone_is_no_error(annotator: Annotator) -> None:
    body = {
        "tasks": [{"id": 1, "data": {"image": "/nowhere"}}],
        "label_config": CONFIG,
        "params": {"context": {"result": [keypoint(*CENTRE)]}},
    }
    response = annotator.client.post("/predict", json=body)
    assert (response.status_code, response.get_json()) == (200, {"results": [[]]})


# Which control answers, and in what form


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ("BrushLabels", "brushlabels"),
        ("BitmaskLabels", "bitmasklabels"),
        ("PolygonLabels", "polygonlabels"),
        ("RectangleLabels", "rectanglelabels"),
    ],
)
@pytest.mark.parametrize(
    "prompt", [keypoint(*CENTRE), rectangle(5, 15, 40, 75), textarea("red")], ids=lambda p: p["id"]
)
def test_controls_get_the_answer_in_their_own_form(
    annotator: Annotator, tag: str, kind: str, prompt: Any
) -> None:
    control = f'<{tag} name="mask" toName="image">{LABELS}</{tag}>'
    (region,) = annotator.asks(TWO, prompt, config=config_of(control))
    assert (region["type"], region["from_name"]) == (kind, "mask")
    assert region["value"][kind] == ["red"]
    left, top, right, bottom = bounds_percent(region)
    assert (left, top, right, bottom) == pytest.approx((10, 25, 40, 83), abs=4)


def bounds_percent(region: dict[str, Any]) -> tuple[float, ...]:
    value, kind = region["value"], region["type"]
    if kind == "rectanglelabels":
        x, y = value["x"], value["y"]
        return x, y, x + value["width"], y + value["height"]
    if kind == "polygonlabels":
        points = np.array(value["points"])
        return (*points.min(axis=0), *points.max(axis=0))
    if kind == "bitmasklabels":
        file = io.BytesIO(base64.b64decode(value["imageDataURL"].split(",")[1]))
        mask = np.asarray(Image.open(file))[..., 3] > 127
    else:
        mask = mask_of(region)
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    edges = columns.min() / width, rows.min() / height, columns.max() / width, rows.max() / height
    return tuple(100 * edge for edge in edges)


def test_every_control_with_the_label_answers(annotator: Annotator) -> None:
    config = config_of(
        '<PolygonLabels name="p" toName="image"><Label value="red"/></PolygonLabels>',
        '<BrushLabels name="b" toName="image"><Label value="red"/></BrushLabels>',
        '<BitmaskLabels name="m" toName="image"><Label value="blue"/></BitmaskLabels>',
    )
    names = [region["from_name"] for region in annotator.asks(TWO, keypoint(25, 50), config=config)]
    assert names == ["b", "p"]


def test_a_box_tool_answers_for_labels_that_no_other_control_has(annotator: Annotator) -> None:
    config = config_of(
        '<BrushLabels name="mask" toName="image"><Label value="blue"/></BrushLabels>'
    )
    (region,) = annotator.asks(TWO, rectangle(5, 15, 40, 75), config=config)
    assert (region["from_name"], region["type"]) == ("box", "rectanglelabels")
    (region,) = annotator.asks(TWO, rectangle(55, 10, 45, 55, label="blue"), config=config)
    assert (region["from_name"], region["type"]) == ("mask", "brushlabels")


@pytest.mark.parametrize("written", ["R", "red", "rouge"])
def test_aliases_are_read_and_written(annotator: Annotator, written: str) -> None:
    config = (
        f'<View>{IMAGE}<BrushLabels name="mask" toName="image"><Label value="red" alias="R"/>'
        '<Label value="blue"/></BrushLabels><KeyPointLabels name="click" toName="image" '
        'smart="true"><Label value="red" alias="rouge"/></KeyPointLabels></View>'
    )
    (region,) = annotator.asks(TWO, keypoint(*CENTRE, label=written), config=config)
    assert region["value"]["brushlabels"] == ["R"]


@pytest.mark.parametrize(("image", "tool"), [("left", "on left"), ("right", "on right")])
def test_images_may_share_an_alias(annotator: Annotator, image: str, tool: str) -> None:
    config = "".join(
        f'<Image name="{side}" value="$image"/><BrushLabels name="{side} mask" toName="{side}">'
        f'<Label value="red {side}" alias="car"/></BrushLabels><KeyPointLabels name="on {side}" '
        f'toName="{side}"><Label value="red {side}" alias="car"/></KeyPointLabels>'
        for side in ("left", "right")
    )
    click = keypoint(*CENTRE, label="car", to_name=image, from_name=tool)
    (region,) = annotator.asks(TWO, click, config=f"<View>{config}</View>")
    assert (region["from_name"], region["value"]["brushlabels"]) == (f"{image} mask", ["car"])


def test_the_least_score_of_a_label_is_not_asked_of_an_answer(annotator: Annotator) -> None:
    control = (
        f'<BrushLabels name="mask" toName="image" model_score_threshold="1">{LABELS}</BrushLabels>'
    )
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
    assert places == {
        "second": [("two", 1)],
        "first": [("two", 0)],
        "other": [("one", None)],
        "unsaid": [("two", 0)],
        "words": [("two", 0), ("two", 1)],
    }


# Regions that are there already


def brush(mask: Mask, name: str = "old", label: str = "blue", **changes: Any) -> dict[str, Any]:
    return {
        "id": name,
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        "original_width": mask.shape[1],
        "original_height": mask.shape[0],
        "value": {
            "format": "rle",
            "rle": mask2rle(mask.astype(np.uint8) * 255),
            "brushlabels": [label],
        },
        **changes,
    }


LEFT = np.zeros(TWO.shape[:2], bool)
LEFT[:, :50] = True
EXCLUSIVE = config_of(
    f'<BrushLabels name="mask" toName="image" overlap="false">{LABELS}</BrushLabels>'
)


def area_of(kind: str, **value: Any) -> dict[str, Any]:
    return brush(LEFT) | {"type": kind, "value": value | {kind: ["blue"]}}


def bitmask_url(mask: Mask) -> str:
    rgba = np.zeros((*mask.shape, 4), np.uint8)
    rgba[..., 3] = mask * 255
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    "region",
    [
        brush(LEFT),
        area_of("bitmasklabels", imageDataURL=bitmask_url(LEFT)),
        area_of("polygonlabels", points=[[0, 0], [25, 0], [25, 100], [0, 100]]),
        area_of("rectanglelabels", x=0, y=0, width=25, height=100, rotation=0),
    ],
    ids=lambda region: region["type"],
)
def test_a_new_mask_leaves_what_is_there(annotator: Annotator, region: Any) -> None:
    there = {"drafts": [{"result": [region], "updated_at": "2026-01-01"}]}
    free = annotator.mask(TWO, keypoint(32, 50), config=CONFIG, **there)
    kept = annotator.mask(TWO, keypoint(32, 50), config=EXCLUSIVE, **there)
    assert free[60, 30]
    assert not (kept & LEFT).any() or (kept & LEFT).sum() <= TWO.shape[0]  # a column, rounded
    assert np.array_equal(kept[:, 52:], free[:, 52:])


def disc(radius_px: int) -> Mask:
    """(200, 300), around the middle."""
    rows, columns = np.mgrid[:200, :300] + 0.5
    return np.asarray(np.hypot(rows - 100, columns - 150) < radius_px)


def exclusive(tag: str) -> str:
    return config_of(f'<{tag} name="mask" toName="image" overlap="false">{LABELS}</{tag}>')


@pytest.mark.parametrize(
    ("tag", "leaves_it"),
    [
        ("BrushLabels", True),
        ("BitmaskLabels", True),
        ("PolygonLabels", False),
        ("RectangleLabels", False),
    ],
)
def test_what_lies_inside_is_left_by_masks_not_by_outlines(
    annotator: Annotator, tag: str, leaves_it: bool
) -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[disc(90)], image[disc(40)] = RGB["red"], RGB["blue"]
    there = {"drafts": [{"result": [brush(disc(60))], "updated_at": "2026-01-01"}]}
    (region,) = annotator.asks(image, keypoint(24, 50), config=exclusive(tag), **there)
    (area,) = drawn_areas(Task(1, 1, {}, [region]))
    assert (area_mask(area) & disc(60)).any() != leaves_it
    assert iou(area_mask(area) | disc(60), disc(90)) > (0.7 if tag == "RectangleLabels" else 0.9)


def test_slivers_along_what_is_there_are_no_regions() -> None:
    """A polygon keeps to its mask to within a pixel."""
    annotator = Annotator(min_island_share=0.0005)
    image = np.zeros((200, 300, 3), np.uint8)
    image[disc(80)] = RGB["red"]
    config, click = exclusive("PolygonLabels"), keypoint(50, 50)
    accepted = annotator.asks(image, click, config=config)
    assert len(accepted) == 1
    there = {"drafts": [{"result": accepted, "updated_at": "2026-01-01"}]}
    assert annotator.asks(image, click, config=config, **there) == []


def test_a_thing_smaller_than_a_speck_keeps_what_is_left_of_it() -> None:
    annotator = Annotator(min_island_share=0.0005)  # 100 px
    image = painted((400, 500), red=(200, 100, 208, 108))
    there = np.zeros((400, 500), np.bool_)
    there[50:200, 50:201] = True  # one column of the thing
    drafts = {"drafts": [{"result": [brush(there)], "updated_at": "2026-01-01"}]}
    box = rectangle(39.2, 24, 3.2, 4)
    whole = annotator.mask(image, box)
    left = annotator.mask(image, box, config=EXCLUSIVE, **drafts)
    assert whole.sum() < 100
    assert np.array_equal(left, whole & ~there)


def test_a_mask_of_which_nothing_is_left_is_logged(
    annotator: Annotator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    there = {"drafts": [{"result": [brush(np.ones_like(LEFT))], "updated_at": "2026-01-01"}]}
    assert annotator.asks(TWO, keypoint(*CENTRE), config=EXCLUSIVE, **there) == []
    assert "Nothing is left of a mask: regions of task 1 cover it already." in caplog.text


@pytest.mark.parametrize("prompt", [keypoint(*CENTRE), textarea("red")], ids=lambda p: p["id"])
def test_an_annotation_is_left_too_unless_it_has_most_of_the_mask(
    annotator: Annotator, prompt: Any
) -> None:
    """Another annotator's covers the same things, and leaves the first prompts something."""

    def asks(taken: Mask) -> Mask:
        there = {"annotations": [{"completed_by": 1, "result": [brush(taken)]}]}
        return annotator.mask(TWO, prompt, config=EXCLUSIVE, **there)

    free = annotator.mask(TWO, prompt)
    part = free & (np.arange(200) < 40)
    assert np.array_equal(asks(part), free & ~part)
    assert np.array_equal(asks(free & (np.arange(200) < 60)), free)
    assert np.array_equal(asks(free), free)


def test_words_leave_what_is_there_too(annotator: Annotator) -> None:
    there = {"drafts": [{"result": [brush(LEFT)], "updated_at": "2026-01-01"}]}
    for text in ("red", "red all"):
        kept = annotator.mask(TWO, textarea(text), config=EXCLUSIVE, **there)
        assert np.array_equal(kept, of_colour(TWO, "red") & ~LEFT)


@pytest.mark.parametrize(
    "region",
    [
        brush(LEFT, name="k"),  # the prompt's own id
        brush(LEFT, from_name="other"),
        brush(LEFT, to_name="other"),
        brush(LEFT, item_index=1),
        brush(LEFT[:, :100]),  # another size
        brush(LEFT, value={"rle": [1, 2, 3]}),
        brush(LEFT, value={"rle": None}),
        brush(LEFT, value={}),
        area_of("bitmasklabels", imageDataURL="data:,x"),
        area_of("bitmasklabels", imageDataURL=bitmask_url(LEFT[:, :100])),
        area_of("bitmasklabels", imageDataURL=7),
        area_of("polygonlabels", points=[[0, 0], [1e999, 0], [25, 100]]),
        area_of("polygonlabels", points=[["x", 0]]),
        area_of("polygonlabels", points=[]),
        area_of("polygonlabels", points=[[1, 2, 3]]),
        area_of("rectanglelabels", x=0, y=0, width=25, height="y"),
        area_of("rectanglelabels", x=0, y=0, width=25, height=10**400),
        area_of("ellipselabels", x=0, y=0, radiusX=25, radiusY=25),
        "nonsense",
    ],
    ids=repr,
)
def test_what_is_elsewhere_or_broken_takes_nothing_away(annotator: Annotator, region: Any) -> None:
    there = {"drafts": [{"result": [region], "updated_at": "2026-01-01"}]}
    free = annotator.mask(TWO, keypoint(32, 50))
    assert np.array_equal(annotator.mask(TWO, keypoint(32, 50), config=EXCLUSIVE, **there), free)


def test_nothing_is_decoded_that_is_not_needed(
    annotator: Annotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    monkeypatch.setattr(module, "area_mask", lambda area: decoded.append(area.id) or LEFT)
    regions = [brush(LEFT, "mine"), brush(LEFT, "other's", from_name="other"), brush(LEFT, "k")]
    there = {"drafts": [{"result": regions, "updated_at": "2026-01-01"}]}
    annotator.asks(TWO, keypoint(32, 50), **there)
    assert decoded == []
    annotator.asks(TWO, keypoint(32, 50), config=EXCLUSIVE, **there)
    assert decoded == ["mine"]


# Words


def words_config(*labels: str, prompt_label: str = "") -> LabelConfig:
    attribute = f'prompt_label="{prompt_label}"' if prompt_label else ""
    return parse_label_config(
        f'<View>{IMAGE}<BrushLabels name="mask" toName="image">{"".join(labels)}</BrushLabels>'
        f'<TextArea name="words" toName="image" {attribute}/></View>'
    )


CAR = '<Label value="Car" predicted_values="car, van"/>'
LIGHT = '<Label value="TrafficLight" alias="tl"/>'
TREE = '<Label value="Veg" alias="tree" predicted_values="tree, bush"/>'
REST = '<Label value="background"/>'
STREET = words_config(CAR, LIGHT, TREE, REST)


def never(text: str, labels: Any) -> Label:
    raise AssertionError("the meaning of words is asked for last")


def read(text: str, config: LabelConfig = STREET, prompt_label: str = "") -> list[tuple[str, ...]]:
    """Each phrase as the name of its label, and its prompts."""
    read = read_words(text, config, config.labels_of("image"), prompt_label, never)
    return [(phrase.label.name, *phrase.prompts) for phrase in read.phrases]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red car -> Car", ("Car", "red car")),
        ("rusty thing->tl", ("TrafficLight", "rusty thing")),
        ("old thing → traffic light", ("TrafficLight", "old thing")),
        ("green car -> Veg", ("Veg", "green car")),
        ("-> Car", ("Car", "car", "van")),
        ("car ->", ("Car", "car", "van")),
        ("red car -> Spaceship", ("Car", "red car")),
        ("Car", ("Car", "car", "van")),
        ("CAR", ("Car", "car", "van")),
        ("van", ("Car", "van")),
        ("trafficLight", ("TrafficLight", "traffic light")),
        ("tl", ("TrafficLight", "traffic light")),
        ("the traffic light by the car", ("TrafficLight", "the traffic light by the car")),
        ("a bush!", ("Veg", "a bush!")),
        ("van or tree", ("Veg", "van or tree")),  # the longest
        ("car near van", ("Car", "car near van")),
    ],
)
def test_a_label_that_is_named_gets_the_mask(text: str, expected: tuple[str, ...]) -> None:
    assert read(text) == [expected]


def test_phrases_are_separated_by_commas() -> None:
    assert read(" red car -> tl,bush, van,, bush") == [
        ("TrafficLight", "red car"),
        ("Veg", "bush"),
        ("Car", "van"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("door, double door", [("door, double door",) * 2]),
        (" Door,  double door ", [("door, double door",) * 2]),
        ("door, double door -> Car", [("Car", "door, double door")]),
        ("red gate -> door, double door", [("door, double door", "red gate")]),
        ("van, bush -> Car", [("Car", "van"), ("Car", "bush")]),
    ],
)
def test_commas_in_the_name_of_a_label_separate_nothing(
    text: str, expected: list[tuple[str, ...]]
) -> None:
    config = words_config('<Label value="door, double door"/>', CAR)
    assert read(text, config) == expected


def test_a_label_with_a_comma_may_be_asked_for_whole() -> None:
    config = words_config('<Label value="door, double door"/>', CAR)
    found = read_words("all door, double door", config, config.labels_of("image"), "", never)
    assert [label.name for label in found.whole] == ["door, double door"]
    assert found.phrases == ()


def test_a_part_of_a_word_names_nothing() -> None:
    assert read("carpet", prompt_label="Veg") == [("Veg", "carpet")]


def test_the_only_label_gets_the_mask() -> None:
    assert read("black cat", words_config(CAR)) == [("Car", "black cat")]
    assert read("black cat", words_config(CAR, REST)) == [("Car", "black cat")]
    assert read("black cat", words_config(REST)) == [("background", "black cat")]


def test_the_prompt_label_gets_what_names_none(caplog: pytest.LogCaptureFixture) -> None:
    assert read("black cat", prompt_label="tree") == [("Veg", "black cat")]
    assert read("red car", prompt_label="tree") == [("Car", "red car")]
    found = read_words(
        "cat", STREET, STREET.labels_of("image"), "nobody", lambda text, labels: labels[0]
    )
    assert found.phrases[0].label.name == "Car"
    assert "prompt_label='nobody' is the name of no label." in caplog.text


def test_the_prompt_label_is_the_one_of_the_text_area() -> None:
    config = words_config(CAR, LIGHT, prompt_label="TrafficLight")
    prompt = Prompt(Words("lamp"), control="words", image="image")
    ask = parse_prompt(Context((prompt,)), config, never)
    assert ask is not None
    assert isinstance(ask.query, Phrases)
    assert ask.query.phrases[0].label.name == "TrafficLight"


def test_the_nearest_label_gets_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (region,) = Annotator().asks(TWO, textarea("navy"))
    assert region["value"]["brushlabels"] == ["blue"]
    assert np.array_equal(mask_of(region), of_colour(TWO, "blue"))
    assert "'navy' names no label: it is drawn as blue, the nearest." in caplog.text


def test_the_rest_is_never_the_nearest() -> None:
    asked = []

    def nearest(text: str, labels: Any) -> Label:
        asked.extend(labels)
        return labels[0]  # type: ignore[no-any-return]

    read_words("cat", STREET, STREET.labels_of("image"), "", nearest)
    assert [label.name for label in asked] == ["Car", "TrafficLight", "Veg"]


@pytest.mark.parametrize("text", ["all", "ALL", " all "])
def test_all_is_every_label(text: str) -> None:
    found = read_words(text, STREET, STREET.labels_of("image"), "", never)
    assert [label.name for label in found.whole] == ["Car", "TrafficLight", "Veg", "background"]
    assert found.phrases == ()


@pytest.mark.parametrize("text", ["car all", "all car", "All Car", "van all"])
def test_all_beside_a_label_is_that_one(text: str) -> None:
    found = read_words(text, STREET, STREET.labels_of("image"), "", never)
    assert [label.name for label in found.whole] == ["Car"]


def test_a_label_that_is_asked_for_whole_is_asked_for_once() -> None:
    found = read_words("all car, Car, red car, bush", STREET, STREET.labels_of("image"), "", never)
    assert [label.name for label in found.whole] == ["Car"]
    assert [phrase.prompts for phrase in found.phrases] == [("red car",), ("bush",)]


def test_all_may_be_in_other_words() -> None:
    assert read("all my cars", prompt_label="Veg") == [("Veg", "all my cars")]
    config = words_config('<Label value="all"/>', CAR)
    assert read("all", config) == [("all", "all")]


def test_phrases_compete_and_join(annotator: Annotator) -> None:
    config = config_of(
        '<BrushLabels name="mask" toName="image"><Label value="blue"/></BrushLabels>'
    )
    (region,) = annotator.asks(TWO, textarea("red, blue"), config=config)
    assert np.array_equal(mask_of(region), of_colour(TWO, "red") | of_colour(TWO, "blue"))
    two = annotator.asks(TWO, textarea("a red thing -> blue, navy -> red"))
    assert [region["value"]["brushlabels"] for region in two] == [["blue"], ["red"]]
    assert np.array_equal(mask_of(two[0]), of_colour(TWO, "red"))


def test_all_gets_what_a_prediction_has(annotator: Annotator) -> None:
    body = {"tasks": [{"id": 1, "data": {"image": data_url(TWO)}}], "label_config": CONFIG}
    predicted = annotator.client.post("/predict", json=body).get_json()["results"][0]["result"]
    assert len(predicted) == 2
    asked = [annotator.asks(TWO, textarea(text)) for text in ("all", "blue all", "blue all, blue")]
    for regions in (predicted, *asked):
        for region in regions:
            del region["id"]
    assert asked == [predicted, predicted[1:], predicted[1:]]


@pytest.mark.parametrize(
    "prompt", [keypoint(*CENTRE), rectangle(5, 15, 40, 75), textarea("all")], ids=lambda p: p["id"]
)
def test_an_answer_replaces_no_region_when_it_is_accepted(
    annotator: Annotator, prompt: Any
) -> None:
    """The editor puts regions in their places by id."""
    body = {"tasks": [{"id": 1, "data": {"image": data_url(TWO)}}], "label_config": CONFIG}
    predicted = annotator.client.post("/predict", json=body).get_json()["results"][0]["result"]
    answers = [predicted, *(annotator.asks(TWO, prompt) for _ in range(2))]
    ids = [region["id"] for regions in answers for region in regions]
    assert len(set(ids)) == len(ids) >= 4


def test_notes_are_no_words_for_the_model(annotator: Annotator) -> None:
    config = config_of(BRUSH, '<TextArea name="notes" toName="image" smart="false"/>')
    note = textarea("blue") | {"from_name": "notes"}
    assert annotator.asks(TWO, note, config=config) == []
    for prompt in (keypoint(*CENTRE), textarea("red")):
        (region,) = annotator.asks(TWO, prompt, note, config=config)
        assert region["value"]["brushlabels"] == ["red"]


def test_the_same_words_work_on_the_next_picture(annotator: Annotator) -> None:
    other = painted((90, 90), red=(5, 5, 60, 70))
    for image in (TWO, other):
        assert np.array_equal(annotator.mask(image, textarea("red")), of_colour(image, "red"))


def test_only_the_last_words_are_answered(annotator: Annotator) -> None:
    (region,) = annotator.asks(TWO, textarea("red", "blue"))
    assert region["value"]["brushlabels"] == ["blue"]


def test_labels_that_words_name_are_no_rivals() -> None:
    found = read_words("red car, lamp -> tl", STREET, STREET.labels_of("image"), "", never)
    assert [label.name for label in competing_labels(found, STREET.labels)] == [
        "words 0",
        "words 1",
        "Veg",
        "background",
    ]
    over = read_words("red car -> Veg", STREET, STREET.labels_of("image"), "", never)
    names = [label.name for label in competing_labels(over, STREET.labels)]
    assert names == ["words 0", "TrafficLight", "background"]
    own = read_words("Veg", STREET, STREET.labels_of("image"), "", never)
    names = [label.name for label in competing_labels(own, STREET.labels)]
    assert names[0] == "Veg", "what it has learned counts"


# What a context means


def test_the_last_prompt_decides() -> None:
    config = parse_label_config(CONFIG)

    def prompt(shape: Any, label: str, **place: Any) -> Prompt:
        return Prompt(shape, (label,), **place)

    first, second = Keypoint(1, 1), Keypoint(2, 2, positive=False)
    box = Rectangle(1, 1, 2, 2)
    blue = prompt(Keypoint(3, 3), "blue")
    context = Context((prompt(first, "red"), blue, prompt(box, "red"), prompt(second, "red")))
    ask = parse_prompt(context, config, never)
    assert ask is not None
    assert ask.query == Clicks(Label("red"), (first, second))
    ask = parse_prompt(Context((prompt(first, "red"), prompt(box, "red"))), config, never)
    assert ask is not None
    assert ask.query == Boxes(Label("red"), (box,))


def test_a_click_without_a_label_is_for_the_only_one() -> None:
    one = parse_label_config(
        f'<View>{IMAGE}<BrushLabels name="m" toName="image"><Label value="red"/></BrushLabels>'
        "</View>"
    )
    bare = Context((Prompt(Keypoint(1, 1)),))
    ask = parse_prompt(bare, one, never)
    assert ask is not None
    assert ask.query == Clicks(Label("red"), (Keypoint(1, 1),))
    assert parse_prompt(bare, parse_label_config(CONFIG), never) is None


# The picture and its features are kept


def test_a_click_needs_no_second_encoding() -> None:
    segmenter = ColourSegmenter()
    annotator = Annotator(colour_engine(segmenter, cache=FeatureCache(1 << 24)))
    body = {"tasks": [{"id": 1, "data": {"image": data_url(TWO)}}], "label_config": CONFIG}
    annotator.client.post("/predict", json=body)
    annotator.asks(TWO, keypoint(*CENTRE))
    annotator.asks(TWO, textarea("navy"))
    assert segmenter.encoded == [(200,)]


# The demo model, on scenes that it never saw


@pytest.fixture(scope="module")
def demo() -> Annotator:
    engine = Engine(lambda: Segmenter.load("demo", device="cpu"), lambda: "demo")
    engine.start()
    return Annotator(engine, model="demo")


DEMO_CONFIG = CONFIG.replace(LABELS, "".join(f'<Label value="{name}"/>' for name in SCENE_LABELS))


def test_on_a_scene(demo: Annotator) -> None:
    scene = render_scene(seed=10_000_000, size_hw=(240, 320))
    label = int(np.bincount(scene.label_map[scene.label_map >= 0]).argmax())
    name, truth = SCENE_LABELS[label], scene.label_map == label
    rows, columns = np.nonzero(truth)
    x, y = columns.mean() / 3.2, rows.mean() / 2.4
    assert truth[int(y * 2.4), int(x * 3.2)]
    context = {
        "click": keypoint(x, y, label=name),
        "box": rectangle(
            columns.min() / 3.2,
            rows.min() / 2.4,
            np.ptp(columns) / 3.2,
            np.ptp(rows) / 2.4,
            label=name,
        ),
        "words": textarea(name),
    }
    for prompt in context.values():
        assert iou(demo.mask(scene.image, prompt, config=DEMO_CONFIG), truth) > 0.7
