"""Masks of labels, answers beside what is drawn, and on predicted regions; scores for sorting.

That the editor puts an answer in its place: `tests/e2e/test_on_demand.py`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from backend.inference.encoded_image import EncodedImage
from backend.inference.engine import Engine
from backend.label_studio.prompts import Context, Prompt
from backend.label_studio.region_reader import area_mask, drawn_areas
from backend.label_studio.requests import Task
from backend.prediction import masks
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from clearclip_core import HELD_OUT_SEEDS, Label, RGBArray, Segmentation, Segmenter, render_scene
from clearclip_core.evaluation.comparison import Candidate, predict_all
from tests.backend.fakes.colour_segmenter import (
    RGB,
    ColourSegmenter,
    brush_config,
    colour_engine,
    data_url,
    flag,
)
from tests.backend.prediction.annotator import (
    BRUSH,
    CENTRE,
    CONFIG,
    IMAGE,
    LABELS,
    TWO,
    Annotator,
    Mask,
    config_of,
    keypoint,
    mask_of,
    of_colour,
    painted,
    rectangle,
    request_for,
    textarea,
)
from tests.backend.prediction.test_predictor import (
    CLICK,
    IMAGES,
    make_predictor,
    predicted,
    read_image,
    request,
)
from tests.e2e.masks import brush_region, iou


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
    decide = Mock(wraps=segmenter.decide)
    segmenter.decide = decide  # type: ignore[method-assign]
    settings = Settings(refine=refine, propagate=propagate)
    predictor = Predictor(colour_engine(segmenter), read_image, settings)
    predictor.predict(request(brush_config("red"), "wide"))
    (asked,) = decide.call_args_list
    how = {name: asked.kwargs[name] for name in ("refine", "propagate")}
    assert how == {"refine": refine, "propagate": propagate}
    assert asked.kwargs["image"].shape == (10, 200, 3)


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


def brush(mask: Mask, **changes: Any) -> dict[str, Any]:
    return brush_region(mask, "blue", "mask", kind="brushlabels") | {"id": "old"} | changes


def exclusive(tag: str) -> str:
    return config_of(f'<{tag} name="mask" toName="image" overlap="false">{LABELS}</{tag}>')


LEFT = np.zeros(TWO.shape[:2], bool)
LEFT[:, :50] = True
LEFT_RGBA = np.pad(LEFT[..., None] * np.uint8(255), ((0, 0), (0, 0), (3, 0)))
EXCLUSIVE = exclusive("BrushLabels")


def area_of(kind: str, **value: Any) -> dict[str, Any]:
    return brush(LEFT) | {"type": kind, "value": value | {kind: ["blue"]}}


@pytest.mark.parametrize(
    "region",
    [
        brush(LEFT),
        area_of("bitmasklabels", imageDataURL=data_url(LEFT_RGBA)),
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


@pytest.mark.parametrize(
    ("tag", "leaves_it"),
    [
        ("BrushLabels", True),
        ("BitmaskLabels", True),
        ("PolygonLabels", False),
        ("RectangleLabels", False),
    ],
)
def test_what_lies_inside_is_left_by_masks(annotator: Annotator, tag: str, leaves_it: bool) -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[disc(90)], image[disc(40)] = RGB["red"], RGB["blue"]
    there = {"drafts": [{"result": [brush(disc(60))], "updated_at": "2026-01-01"}]}
    (region,) = annotator.asks(image, keypoint(24, 50), config=exclusive(tag), **there)
    (area,) = drawn_areas([region])
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


@pytest.mark.parametrize("prompt", [keypoint(*CENTRE), textarea("red")], ids=lambda p: p["type"])
def test_an_annotation_is_left_but_for_most_of_the_mask(annotator: Annotator, prompt: Any) -> None:
    """Another annotator's covers the same things, and leaves the first prompts something."""

    def asks(taken: Mask) -> Mask:
        there = {"annotations": [{"completed_by": 1, "result": [brush(taken)]}]}
        return annotator.mask(TWO, prompt, config=EXCLUSIVE, **there)

    free = annotator.mask(TWO, prompt)
    part = free & (np.arange(200) < 40)
    assert np.array_equal(asks(part), free & ~part)
    assert np.array_equal(asks(free & (np.arange(200) < 60)), free)
    assert np.array_equal(asks(free), free)


@pytest.mark.parametrize(
    "region",
    [
        brush(LEFT, id="k"),  # the prompt's own id
        brush(LEFT, from_name="other"),
        brush(LEFT, to_name="other"),
        brush(LEFT, item_index=1),
        brush(LEFT[:, :100]),  # another size
        brush(LEFT, value={"rle": [1, 2, 3]}),
        area_of("polygonlabels", points=[[0, 0], ["x", 0], [25, 100]]),
        "nonsense",
    ],
    ids=repr,
)
def test_what_is_elsewhere_or_broken_takes_nothing_away(annotator: Annotator, region: Any) -> None:
    there = {"drafts": [{"result": [region], "updated_at": "2026-01-01"}]}
    free = annotator.mask(TWO, keypoint(32, 50))
    assert np.array_equal(annotator.mask(TWO, keypoint(32, 50), config=EXCLUSIVE, **there), free)


#: Two red things, which one predicted region has together.
THINGS = painted((100, 200), red=(20, 20, 60, 60)) | painted((100, 200), red=(140, 20, 180, 60))
ONE_ROW = (
    f'<View>{IMAGE}<Labels name="mask" toName="image">{LABELS}</Labels>'
    '<Brush name="brush" toName="image"/><KeyPoint name="click" toName="image" smart="true"/>'
    '<Rectangle name="box" toName="image" smart="true"/></View>'
)


def region(mask: Mask, config: str, **more: Any) -> dict[str, Any]:
    kind = "labels" if "<Labels" in config else "brushlabels"
    return brush_region(mask, "red", "mask", "image", kind) | {"id": "predicted"} | more


def box_of(left: int, top: int, right: int, bottom: int) -> Mask:
    mask = np.zeros((100, 200), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


ALL = of_colour(THINGS, "red")
LEFT_THING, RIGHT_THING = ALL & box_of(0, 0, 100, 100), ALL & box_of(100, 0, 200, 100)
SPILLED = LEFT_THING | box_of(60, 40, 90, 60)
ON_LEFT, ON_RIGHT = keypoint(20, 40, id="p"), keypoint(80, 40, id="q")


def answer(
    *prompts: Any, seen: Mask = SPILLED | RIGHT_THING, config: str = CONFIG, **task: Any
) -> tuple[str, Mask]:
    """The id and the mask of the answer where such a region is predicted."""
    given = {"predictions": [{"id": 4, "result": [region(seen, config)]}]} | task
    found = Annotator().asks(THINGS, *prompts, config=config, **given)
    return found[-1]["id"], mask_of(found[-1])


@pytest.mark.parametrize("config", [CONFIG, ONE_ROW])
def test_what_is_clicked_on_is_drawn_anew_and_other_islands_stay(config: str) -> None:
    place, mask = answer(ON_LEFT, config=config)
    assert place == "predicted"
    np.testing.assert_array_equal(mask, LEFT_THING | RIGHT_THING)


def test_inside_a_box_it_is_drawn_anew_and_outside_it_stays() -> None:
    box = rectangle(5, 10, 30, 60)
    place, mask = answer(box)
    alone = answer(box, predictions=[])[1]
    assert place == "predicted"
    np.testing.assert_array_equal(mask, alone | ((SPILLED | RIGHT_THING) & ~box_of(10, 10, 70, 70)))


def test_a_click_beside_it_adds_what_touches_it_and_leaves_what_does_not() -> None:
    half = LEFT_THING & box_of(0, 0, 40, 100)
    place, mask = answer(keypoint(25, 40), seen=half)
    assert place == "predicted"
    np.testing.assert_array_equal(mask, LEFT_THING)
    place, mask = answer(ON_RIGHT, seen=half)
    assert place != "predicted"
    np.testing.assert_array_equal(mask, RIGHT_THING)


def test_it_is_the_draft_that_counts() -> None:
    smaller = RIGHT_THING & box_of(0, 0, 160, 100)
    changed = region(SPILLED | smaller, CONFIG, origin="prediction-changed")
    place, mask = answer(ON_LEFT, drafts=[{"result": [changed]}])
    assert place == "predicted"
    np.testing.assert_array_equal(mask, LEFT_THING | smaller)
    by_hand = region(SPILLED, CONFIG, id="by-hand")
    for result in ([], [by_hand]):
        assert answer(ON_LEFT, drafts=[{"result": result}])[0] not in ("predicted", "by-hand")


@pytest.mark.parametrize(
    "more",
    [
        {"annotations": [{"result": []}]},  # nobody knows whether it is the open one
        {"predictions": []},
        {"config": config_of(BRUSH.replace("toName", 'overlap="false" toName'))},
        {"predictions": [{"id": 4, "result": [{"id": "predicted"}, 3]}]},
    ],
)
def test_where_that_is_not_known_or_not_wanted_it_is_a_region_of_its_own(more: Any) -> None:
    place, mask = answer(ON_LEFT, **more)
    assert place != "predicted"
    np.testing.assert_array_equal(mask, LEFT_THING)


def test_until_a_draft_is_saved_an_answer_is_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clicks come together until they are accepted; then others come, and the draft is old."""
    annotator, now = Annotator(), [100.0]
    monkeypatch.setattr(masks.time, "monotonic", lambda: now[0])
    seen = {"predictions": [{"id": 4, "result": [region(ALL, CONFIG)]}]}

    def place(*prompts: Any) -> bool:
        return bool(annotator.asks(THINGS, *prompts, **seen)[0]["id"] == "predicted")

    further = keypoint(22, 45, id="r")
    assert [place(ON_LEFT), place(ON_LEFT, further), place(ON_LEFT)] == [True] * 3
    assert not place(ON_RIGHT)
    now[0] += 11
    assert place(ON_RIGHT)
