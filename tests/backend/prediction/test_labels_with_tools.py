"""``<Labels>`` with a ``<Brush>``, ``<Polygon>`` or ``<Rectangle>``: one control of two tags.

The regions here are as Label Studio 1.23.2 writes them; the real
one: `tests/e2e/test_editor.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from backend.errors import LabelConfigError
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.region_reader import read_areas
from backend.prediction.predictor import ModelVersions
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import flag
from tests.backend.prediction.annotator import Annotator, mask_of

LABELS = (
    '<Labels name="kind" toName="img"><Label value="red" alias="r"/><Label value="blue"/></Labels>'
)
TOOLS = {
    "brush": '<Brush name="brush" toName="img"/>',
    "bitmask": '<Bitmask name="bitmask" toName="img"/>',
    "polygon": '<Polygon name="polygon" toName="img"/>',
    "rectangle": '<Rectangle name="rectangle" toName="img"/>',
}
CLICK = '<KeyPoint name="click" toName="img" smart="true"/>'
SMART = '<Rectangle name="ask" toName="img" smart="true"/>'


def config_of(*tags: str) -> str:
    return f'<View><Image name="img" value="$image"/>{"".join(tags)}</View>'


def predicted(config: str) -> list[dict[str, Any]]:
    return Annotator().predicted(flag("red", "blue"), config)


@pytest.mark.parametrize("tool", ["brush", "polygon", "rectangle"])
def test_a_region_is_two_entries_with_one_id_as_the_editor_writes_them(tool: str) -> None:
    result = predicted(config_of(LABELS, TOOLS[tool]))
    assert [(each["type"], each["from_name"]) for each in result] == [
        (tool, tool),
        ("labels", "kind"),
        (tool, tool),
        ("labels", "kind"),
    ]
    for shape, labelled in (result[:2], result[2:]):
        assert shape["id"] == labelled["id"]
        assert shape["to_name"] == labelled["to_name"] == "img"
        assert labelled["value"] == {**shape["value"], "labels": labelled["value"]["labels"]}
    assert [each["value"].get("labels") for each in result] == [None, ["r"], None, ["blue"]]
    assert result[0]["id"] != result[2]["id"]


def test_of_several_tools_one_draws() -> None:
    def chosen(*tags: str) -> tuple[str, str, bool]:
        (control,) = parse_label_config(config_of(LABELS, *tags), None).controls
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
    labels = LABELS.replace("toName", 'model_score_threshold="0.5" adapt="off" toName')
    brush = TOOLS["brush"].replace("/>", ' prelabel="auto" overlap="false" score="effort"/>')
    config = parse_label_config(config_of(labels, brush), None)
    (control,) = config.controls
    assert [label.threshold for label in control.labels] == [0.5, 0.5]
    assert (control.overlap, config.prelabel) == (False, True)
    assert (config.score, config.adapt) == ("effort", "off")


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ([LABELS], "<Labels> beside a <Brush>, <Bitmask>, "),
        ([f'<Repeater on="$x">{LABELS}{TOOLS["brush"]}</Repeater>'], "<Repeater>"),
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


def test_a_click_is_answered_with_its_label() -> None:
    """The editor sends the point twice, for its tool and for its label; both carry the label."""
    shape = {"x": 75, "y": 50, "width": 0.5, "labels": ["r"]}
    size = {"original_width": 60, "original_height": 40, "image_rotation": 0, "to_name": "img"}
    point = {**size, "id": "p", "type": "keypoint", "from_name": "click", "value": shape}
    config = config_of(LABELS, TOOLS["brush"], CLICK)
    asked = (point | {"is_positive": True}, point | {"type": "labels", "from_name": "kind"})
    brush, labelled = Annotator().asks(flag("red", "blue"), *asked, config=config)
    assert (brush["type"], labelled["value"]["labels"]) == ("brush", ["r"])
    assert mask_of(labelled)[20, 45]
    assert not mask_of(labelled)[20, 10]


def test_the_tool_is_in_the_model_version_and_changes_no_other() -> None:
    versions = ModelVersions(Settings(), lambda: "w", None)

    def of(*tags: str) -> str:
        return versions.current(parse_label_config(config_of(*tags), None))

    assert of(LABELS, TOOLS["brush"]) != of(LABELS, TOOLS["polygon"])
    assert of(LABELS, TOOLS["brush"]) == of(LABELS, TOOLS["brush"], TOOLS["polygon"])
    assert of(LABELS, TOOLS["brush"]) != of(LABELS, TOOLS["brush"].replace('"brush"', '"other"'))


BOX = {"x": 50.0, "y": 0.0, "width": 50.0, "height": 100.0, "rotation": 0}


def box_entries() -> list[dict[str, Any]]:
    """Return a box as the editor sends it: only the entry of the labels has them."""
    size = {"original_width": 60, "original_height": 40, "image_rotation": 0, "to_name": "img"}
    shape = {**size, "id": "b", "type": "rectangle", "from_name": "ask", "value": BOX}
    return [
        shape,
        shape | {"type": "labels", "from_name": "kind", "value": BOX | {"labels": ["r"]}},
    ]


def test_a_box_is_answered_with_the_label_of_its_other_entry() -> None:
    config = config_of(LABELS, TOOLS["brush"], SMART)
    brush, labelled = Annotator().asks(flag("blue", "red"), *box_entries(), config=config)
    assert (brush["type"], labelled["value"]["labels"]) == ("brush", ["r"])
    assert mask_of(labelled)[20, 45]
    assert not mask_of(labelled)[20, 10]


def test_a_box_that_waits_at_submit_is_no_region_and_one_that_is_drawn_is() -> None:
    def labels_of(*tags: str) -> list[tuple[str, ...]]:
        config = parse_label_config(config_of(LABELS, *tags), None)
        found = read_areas(box_entries(), config.control_names, config.prompt_tools)
        return [area.labels for area in found]

    assert labels_of(TOOLS["brush"], SMART) == []
    assert labels_of(TOOLS["brush"], SMART.replace(' smart="true"', "")) == [("r",)]
    assert labels_of(SMART) == [("r",)], "it is the only tool that draws"
