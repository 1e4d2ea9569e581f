"""From requests to predictions: places of regions, scores, and what one failure costs.

At the end ``<Labels>`` with a ``<Brush>``, ``<Polygon>`` or ``<Rectangle>``: one control of two
tags, whose regions are as Label Studio 1.23.2 writes them; really: `tests/e2e/test_editor.py`.
"""

from typing import Any

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface

from backend.errors import Busy, ImageNotFound, ImageRefused, LabelConfigError
from backend.inference.queue import Priority
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.prompts import Context, Keypoint, Prompt
from backend.label_studio.region_reader import Rectangle, read_areas
from backend.label_studio.requests import Task
from backend.prediction.batches import Outcome
from backend.prediction.predictor import ModelVersions, Predictor, priority
from backend.settings import Settings
from backend.telemetry.task_tracker import TaskTracker, TrackedTask
from clearclip_core import RGBArray
from tests.backend.fakes.colour_segmenter import ColourSegmenter, brush_config, colour_engine, flag
from tests.backend.prediction.annotator import (
    LABELS,
    Annotator,
    RequestWithConfig,
    mask_of,
    request_for,
)

IMAGES = {
    "flag": flag("red", "white", "blue"),
    "red": flag("red"),
    "wide": flag("red", "blue", size_hw=(10, 200)),
}
CLICK = Context((Prompt(Keypoint(10, 50), ("red",)),))


def read_image(source: str, task: Task) -> RGBArray:
    if source == "away":
        raise ImageRefused("The host of away cannot be reached.")
    if source not in IMAGES:
        raise ImageNotFound(f"There is no image {source}.")
    return IMAGES[source]


def make_predictor(**settings: object) -> Predictor:
    return Predictor(colour_engine(), read_image, Settings(**settings))  # type: ignore[arg-type]


def request(
    config: str, *images: str, context: Context | None = None, first: int = 1, **settings: Any
) -> RequestWithConfig:
    tasks = tuple(Task(i, 1, {"image": image}) for i, image in enumerate(images, first))
    return request_for(config, *tasks, context=context, **settings)


def predicted(asked: RequestWithConfig, predictor: Predictor | None = None) -> dict[str, Any]:
    (entry,) = (predictor or make_predictor()).predict(asked)
    assert isinstance(entry, dict)
    assert LabelInterface(asked.xml).validate_prediction(entry)
    return entry


def kinds_of(entry: object) -> list[str]:
    assert isinstance(entry, dict)
    return [region["type"] for region in entry["result"]]


def places_of(entry: object) -> list[tuple[str, int | None]]:
    assert isinstance(entry, dict)
    return [(region["to_name"], region.get("item_index")) for region in entry["result"]]


def test_each_label_is_one_region_in_its_place_and_scores_are_means_over_pixels() -> None:
    """The stand-in is 0.75 sure on the left half, 0.5 on the right: red 20 px, blue 20 px."""
    config = brush_config("blue", "red")
    predictor = make_predictor()
    entry = predicted(request(config, "flag"), predictor)
    assert entry["model_version"] == predictor.versions.current(parse_label_config(config, None))
    blue, red = entry["result"]
    assert blue["value"]["brushlabels"] == ["blue"]
    assert red["value"]["brushlabels"] == ["red"]
    expected = np.zeros((40, 60), bool)
    expected[:, :20] = True
    assert np.array_equal(mask_of(red), expected)
    assert np.array_equal(mask_of(blue), expected[:, ::-1])
    assert [blue["score"], red["score"]] == [0.5, 0.75]
    assert entry["score"] == pytest.approx((0.5 + 0.75) / 2)


def test_a_model_that_crashes_costs_its_task() -> None:
    assert make_predictor().predict(request(brush_config("red", "crash"), "red")) == [[]]


TWO_TAGS = (
    '<View><Image name="one" value="$front"/><Image name="many" valueList="$pages"/>'
    '<BrushLabels name="m" toName="one,many"><Label value="red"/></BrushLabels>'
    '<TextArea name="words" toName="many"/></View>'
)


@pytest.mark.parametrize(
    ("data", "places", "reason", "sentence"),
    [
        (
            {"front": "gone", "pages": ["red", "gone", "flag"]},
            [("many", 0), ("many", 2)],
            "ImageNotFound",
            "Predicted without 2 of 4 pictures: There is no image gone.",
        ),
        (
            {"front": "away", "pages": ["away", "red"]},
            [("many", 1)],
            "ImageRefused",
            "Predicted without 2 of 3 pictures: The host of away cannot be reached.",
        ),
        (
            {"pages": ["red"]},
            [("many", 0)],
            "DataKeyError",
            'Predicted without 1 of 2 pictures: The labeling config asks for "$front", but the '
            "task's data has only: pages.",
        ),
    ],
)
def test_a_missing_picture_costs_no_other_of_its_task(
    data: dict[str, Any], places: list[tuple[str, int | None]], reason: str, sentence: str
) -> None:
    records: list[TrackedTask] = []
    tracker = TaskTracker(records.append)
    predictor = Predictor(colour_engine(), read_image, Settings(), tracker=tracker)
    spec = predictor.spec(parse_label_config(TWO_TAGS, None), Priority.BATCH, 1, None)
    outcome = predictor.outcome(Task(5, 1, data), spec)
    assert (outcome.reason, outcome.missing) == ("", sentence)
    assert outcome.may_pass == (reason == "ImageRefused")
    assert places_of(outcome.entry) == places
    (record,) = records
    assert (record.task, type(record.error).__name__, record.images) == (5, reason, len(places))
    assert record.has_prediction


@pytest.mark.parametrize(
    ("pages", "outcome"),
    [
        (["gone"], Outcome([], "There is no image gone.")),
        (["gone", "away"], Outcome([], "The host of away cannot be reached.", may_pass=True)),
    ],
)
def test_a_task_without_any_of_its_pictures_fails(pages: list[str], outcome: Outcome) -> None:
    predictor = make_predictor()
    spec = predictor.spec(parse_label_config(TWO_TAGS, None), Priority.BATCH, 1, None)
    assert predictor.outcome(Task(1, 1, {"front": "gone", "pages": pages}), spec) == outcome


def test_words_are_answered_on_the_pictures_that_are_there() -> None:
    task = Task(1, 1, {"front": "red", "pages": ["gone", "flag"]})
    words = Context((Prompt("red", control="words", image="many"),))
    assert places_of(predicted(request_for(TWO_TAGS, task, context=words))) == [("many", 1)]


def test_who_waits_decides_the_urgency() -> None:
    config = brush_config("red")
    assert priority(request(config, "red", context=CLICK)) is Priority.INTERACTIVE
    assert priority(request(config, "red")) is Priority.OPENED
    assert priority(request(config, "red", "flag")) is Priority.BATCH


def test_a_full_queue_is_no_empty_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.inference.queue.CAPACITY", 0)
    with pytest.raises(Busy, match="try again"):
        make_predictor().predict(request(brush_config("red"), "red", context=CLICK))


def test_priming_embeds_the_words_of_a_config_once() -> None:
    segmenter = ColourSegmenter(words_known=False)
    predictor = Predictor(colour_engine(segmenter), read_image, Settings())
    for _ in range(3):
        predictor.warm_up(parse_label_config(brush_config("red", "blue"), None))
    predictor.predict(request(brush_config("red", "blue"), "red"))
    assert segmenter.embedded == [("grey",), ("red",), ("blue",)]


def three_controls(brush: str = "", polygon: str = "", rectangle: str = "") -> str:
    return (
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="b" toName="image" {brush}>{LABELS}</BrushLabels>'
        f'<PolygonLabels name="p" toName="image" {polygon}>{LABELS}</PolygonLabels>'
        f'<RectangleLabels name="r" toName="image" {rectangle}>{LABELS}</RectangleLabels></View>'
    )


def test_a_prompt_is_answered_in_one_form_by_a_control_that_is_predicted_if_there_is_one() -> None:
    off = 'prelabel="no"'
    config = three_controls(polygon=off, rectangle=off)
    predictor = make_predictor()
    batch = predictor.predict(request(config, "flag", "red"))
    assert list(map(kinds_of, batch)) == [["brushlabels"] * 2, ["brushlabels"]]
    box = Prompt(Rectangle(0, 0, 40, 100), ("red",), image="image")
    for prompt in (*CLICK.prompts, box, Prompt("red")):
        (answer,) = predictor.predict(request(config, "flag", context=Context((prompt,))))
        assert kinds_of(answer) == ["brushlabels"], prompt
    alone = three_controls(brush=off, polygon=off, rectangle=off)
    (answer,) = predictor.predict(request(alone, "flag", context=CLICK))
    assert kinds_of(answer) == ["brushlabels"], "the first that has the label"


def test_labels_that_are_not_predicted_compete_and_have_no_picture_read() -> None:
    config = (
        '<View><Image name="image" value="$image"/>'
        '<BrushLabels name="b" toName="image"><Label value="red"/></BrushLabels>'
        '<BrushLabels name="n" toName="image" prelabel="no"><Label value="blue"/></BrushLabels>'
        "</View>"
    )
    entry = predicted(request(config, "flag", score="effort"))
    (red,) = entry["result"]
    alone = predicted(request(brush_config("red", "blue"), "flag"))
    assert red["value"] == alone["result"][0]["value"]
    assert 0 <= entry["score"] <= 1
    none = brush_config("red", attributes='prelabel="no"')
    assert predicted(request(none, "gone"))["result"] == []


# What a model version depends on


def version(config: str = brush_config("red"), **settings: object) -> str:
    parsed = parse_label_config(config, Settings(**settings))
    return make_predictor(**settings).versions.current(parsed)


def test_the_version_follows_all_that_changes_masks() -> None:
    same = version()
    assert same == version()
    assert same.startswith("ViT-B-16/openai clearclip ")
    others = {
        version(brush_config("red", "blue")),
        version(brush_config("red", attributes='model_score_threshold="0.5"')),
        version(
            '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">'
            '<Label value="red" predicted_values="crimson"/></BrushLabels></View>'
        ),
        *(version(short_side_px=672), version(min_island_share=0.01), version(refine=False)),
        *(version(propagate=True), version(method="sclip"), version(model="ViT-B-16/dfn2b")),
    }
    assert len(others | {same}) == 10
    assert same == version(short_side_px=448)  # what the method is read at by default
    assert version(method="scclip") == version(method="scclip", short_side_px=336)
    assert same == version(precision="fp32", device="cpu")
    coloured = brush_config("red").replace('value="red"', 'value="red" background="#ff0000"')
    assert same == version(coloured)


def test_what_a_config_chooses_is_in_the_version_only_where_it_changes_predictions() -> None:
    scores = ('score="confidence"', 'score="effort"')
    plain, other = (brush_config("red", attributes=each) for each in scores)
    assert version(plain, score="effort") == version(score="confidence") == version()
    assert version(other) == version(score="effort") != version()


PLAIN = '<Labels name="kind" toName="img"><Label value="red" alias="r"/>'
PLAIN += '<Label value="blue"/></Labels>'
TOOLS = {
    "brush": '<Brush name="brush" toName="img"/>',
    "bitmask": '<Bitmask name="bitmask" toName="img"/>',
    "polygon": '<Polygon name="polygon" toName="img"/>',
    "rectangle": '<Rectangle name="rectangle" toName="img"/>',
}
CLICKS = '<KeyPoint name="click" toName="img" smart="true"/>'
SMART = '<Rectangle name="ask" toName="img" smart="true"/>'


def config_of(*tags: str) -> str:
    return f'<View><Image name="img" value="$image"/>{"".join(tags)}</View>'


@pytest.mark.parametrize("tool", ["brush", "polygon", "rectangle"])
def test_a_region_is_two_entries_with_one_id_as_the_editor_writes_them(tool: str) -> None:
    result = Annotator().predicted(flag("red", "blue"), config_of(PLAIN, TOOLS[tool]))
    drawn_by = [(each["type"], each["from_name"]) for each in result]
    assert drawn_by == [(tool, tool), ("labels", "kind")] * 2
    for shape, labelled in (result[:2], result[2:]):
        assert shape["id"] == labelled["id"]
        assert shape["to_name"] == labelled["to_name"] == "img"
        assert labelled["value"] == {**shape["value"], "labels": labelled["value"]["labels"]}
    assert [each["value"].get("labels") for each in result] == [None, ["r"], None, ["blue"]]
    assert result[0]["id"] != result[2]["id"]


def test_of_several_tools_one_draws() -> None:
    def chosen(*tags: str) -> tuple[str, str, bool]:
        (control,) = parse_label_config(config_of(PLAIN, *tags), None).controls
        return control.kind, control.tool, control.is_predicted

    every = list(TOOLS.values())
    assert chosen(*reversed(every)) == ("brushlabels", "brush", True)
    no_brush = TOOLS["brush"].replace("/>", ' prelabel="no"/>')
    assert chosen(no_brush, *every[2:]) == ("polygonlabels", "polygon", True)
    assert chosen(no_brush) == ("brushlabels", "brush", False)
    assert chosen(SMART, TOOLS["polygon"]) == ("polygonlabels", "polygon", True)
    assert chosen(SMART) == ("rectanglelabels", "ask", True)
    elsewhere = TOOLS["brush"].replace('toName="img"', 'toName="other"')
    assert chosen(elsewhere, TOOLS["rectangle"]) == ("rectanglelabels", "rectangle", True)


def test_attributes_count_on_either_tag() -> None:
    labels = PLAIN.replace("toName", 'model_score_threshold="0.5" adapt="off" toName')
    brush = TOOLS["brush"].replace("/>", ' prelabel="auto" overlap="false" score="effort"/>')
    config = parse_label_config(config_of(labels, brush), None)
    (control,) = config.controls
    assert [label.threshold for label in control.labels] == [0.5, 0.5]
    assert (control.overlap, config.prelabel) == (False, True)
    assert (config.score, config.adapt) == ("effort", "off")


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ([PLAIN], "<Labels> beside a <Brush>, <Bitmask>, "),
        ([f'<Repeater on="$x">{PLAIN}{TOOLS["brush"]}</Repeater>'], "<Repeater>"),
        (
            ['<Labels name="kind" toName="img" value="$labels"/>', TOOLS["brush"]],
            "Labels that come from the task",
        ),
        ([TOOLS["brush"]], "with one or more <Label> tags"),
    ],
)
def test_what_cannot_be_drawn_is_said_with_how_to_write_it(tags: list[str], sentence: str) -> None:
    with pytest.raises(LabelConfigError, match=sentence):
        parse_label_config(config_of(*tags), None)


def test_the_tool_is_in_the_model_version_and_changes_no_other() -> None:
    versions = ModelVersions(Settings(), lambda: "w", None)

    def of(*tags: str) -> str:
        return versions.current(parse_label_config(config_of(*tags), None))

    assert of(PLAIN, TOOLS["brush"]) != of(PLAIN, TOOLS["polygon"])
    assert of(PLAIN, TOOLS["brush"]) == of(PLAIN, TOOLS["brush"], TOOLS["polygon"])
    assert of(PLAIN, TOOLS["brush"]) != of(PLAIN, TOOLS["brush"].replace('"brush"', '"other"'))


SIZE = {"original_width": 60, "original_height": 40, "image_rotation": 0, "to_name": "img"}
BOX = {"x": 50.0, "y": 0.0, "width": 50.0, "height": 100.0, "rotation": 0}


def box_entries() -> list[dict[str, Any]]:
    """Return a box as the editor sends it: only the entry of the labels has them."""
    shape = {**SIZE, "id": "b", "type": "rectangle", "from_name": "ask", "value": BOX}
    labelled = {"type": "labels", "from_name": "kind", "value": BOX | {"labels": ["r"]}}
    return [shape, shape | labelled]


def point_entries() -> list[dict[str, Any]]:
    """Return a click as the editor sends it, for its tool and for its label: both have it."""
    value = {"x": 75, "y": 50, "width": 0.5, "labels": ["r"]}
    point = {**SIZE, "id": "p", "type": "keypoint", "from_name": "click", "value": value}
    return [point | {"is_positive": True}, point | {"type": "labels", "from_name": "kind"}]


@pytest.mark.parametrize(
    ("tool", "asked"), [(CLICKS, point_entries()), (SMART, box_entries())], ids=["click", "box"]
)
def test_a_prompt_is_answered_with_its_label(tool: str, asked: list[Any]) -> None:
    config = config_of(PLAIN, TOOLS["brush"], tool)
    brush, labelled = Annotator().asks(flag("blue", "red"), *asked, config=config)
    assert (brush["type"], labelled["value"]["labels"]) == ("brush", ["r"])
    assert mask_of(labelled)[20, 45]
    assert not mask_of(labelled)[20, 10]


def test_a_box_that_waits_at_submit_is_no_region_and_one_that_is_drawn_is() -> None:
    def labels_of(*tags: str) -> list[tuple[str, ...]]:
        config = parse_label_config(config_of(PLAIN, *tags), None)
        found = read_areas(box_entries(), config.control_names, config.prompt_tools)
        return [area.labels for area in found]

    assert labels_of(TOOLS["brush"], SMART) == []
    assert labels_of(TOOLS["brush"], SMART.replace(' smart="true"', "")) == [("r",)]
    assert labels_of(SMART) == [("r",)], "it is the only tool that draws"
