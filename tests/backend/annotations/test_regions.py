"""Which regions of an annotation are regions of labels."""

from typing import Any

from backend.annotations.regions import read_regions
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.set_up import in_one_row

SIZE = {"original_width": 60, "original_height": 40, "image_rotation": 0, "to_name": "img"}

#: What `connect` recommends: one row of labels, and tools beside it that ask.
ONE_ROW = in_one_row(
    '<View><Image name="img" value="$image"/>'
    '<BrushLabels name="mask" toName="img"><Label value="car"/></BrushLabels></View>'
)


def config() -> LabelConfig:
    return parse_label_config(ONE_ROW, None)


def drawn_with(tool: str) -> list[dict[str, Any]]:
    """Return a box as Label Studio stores it: an entry of its tool, and one of the labels."""
    box = {"x": 10, "y": 10, "width": 50, "height": 50, "rotation": 0}
    entry = {**SIZE, "id": "left", "type": "rectangle", "from_name": tool, "value": box}
    labels = {"type": "labels", "from_name": "mask", "value": box | {"labels": ["car"]}}
    return [entry, entry | labels]


def test_a_prompts_box_that_is_left_behind_is_no_region() -> None:
    assert '<Rectangle name="box"' in ONE_ROW
    assert read_regions(drawn_with("box"), config()) == {}


def test_a_box_of_another_tool_is_a_region() -> None:
    (regions,) = read_regions(drawn_with("another"), config()).values()
    assert [each.label for each in regions] == ["car"]
