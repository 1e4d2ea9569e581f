"""Annotations that would take hours, by the steps that they are counted to take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.errors import BadRequest
from backend.feedback.comparison import check_work, compare_annotation
from backend.label_studio.brush_rle import encode_rle
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.region_reader import Area
from backend.label_studio.requests import Task

LABELS = [f"label {number}" for number in range(30)]
CONFIG = parse_label_config(
    f"""<View><Image name="img" valueList="$pages"/>
    <BrushLabels name="mask" toName="img">{"".join(f'<Label value="{n}"/>' for n in LABELS)}
    </BrushLabels>
    <PolygonLabels name="poly" toName="img"><Label value="Roof"/></PolygonLabels>
    <RectangleLabels name="box" toName="img"><Label value="Sign"/></RectangleLabels>
    <BitmaskLabels name="bits" toName="img"><Label value="Leaf"/></BitmaskLabels></View>"""
)
TASK = Task(1, 7, {"pages": ["/a.png", "/b.png"]})


def region(
    kind: str, control: str, label: str, value: dict[str, Any], side: int = 16_384, **more: Any
) -> dict[str, Any]:
    """A region on a square image."""
    size = {"original_width": side, "original_height": side, "to_name": "img"}
    return size | {"type": kind, "from_name": control, "value": {kind: [label]} | value} | more


def zigzag(points: int, rows_percent: float) -> dict[str, Any]:
    return {"points": [[n % 101 * 0.99, n % 2 * rows_percent] for n in range(points)]}


ZIGZAG = zigzag(40_000, 100 * 110 / 16_000)
BOX = {"x": 0, "y": 0, "width": 100, "height": 100}
RLE = {"rle": encode_rle(np.ones((128, 128), np.bool_))}
HOSTILE = {
    "polygons of 40,000 edges that cross 110 rows each": [
        region("polygonlabels", "poly", "Roof", ZIGZAG, side=16_000) for _ in range(50)
    ],
    "boxes that cover all of a large image": [
        region("rectanglelabels", "box", "Sign", BOX) for _ in range(1000)
    ],
    "rotated boxes with corners far outside": [
        region("rectanglelabels", "box", "Sign", BOX | {"rotation": 45, "y": -200, "width": 1e6})
        for _ in range(1000)
    ],
    "ellipses": [
        region("ellipselabels", "poly", "Roof", {"x": 50, "y": 50, "radiusX": 50, "radiusY": 50})
        for _ in range(60)
    ],
    "bitmasks": [
        region("bitmasklabels", "bits", "Leaf", {"imageDataURL": "data:,"}) for _ in range(100)
    ],
    "one on each of many images": [
        region("rectanglelabels", "box", "Sign", BOX, item_index=number) for number in range(1000)
    ],
    "one region with many labels": [
        region("brushlabels", "mask", "", RLE | {"brushlabels": LABELS}, id=str(number))
        for number in range(100)
    ],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_takes_hours_is_refused_before_it_is_drawn(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[object] = []
    monkeypatch.setattr("backend.feedback.evidence.area_mask", drawn.append)
    monkeypatch.setattr("backend.feedback.evidence.draw_area", lambda *each: drawn.append(each))
    with pytest.raises(BadRequest, match=r"would take \d+ steps to draw"):
        compare_annotation(None, HOSTILE[name], CONFIG, TASK)
    assert drawn == []


def test_an_annotation_of_a_large_photograph_is_allowed() -> None:
    """A hundred megapixels, thirty labels of three painted regions, and a thousand outlines."""
    size_hw, stroke = (10_000, 10_000), [0, 0, 0, 0, 57, 27, 252] + [0] * 10_000
    brush = [Area("brushlabels", "mask", "img", None, size_hw, {"rle": stroke})] * 3
    corners = {"points": [[x, y] for x in (10, 15) for y in (20, 22)]}
    roofs = [Area("polygonlabels", "poly", "img", None, size_hw, corners)] * 1000
    check_work([(size_hw, [{}, dict.fromkeys(LABELS, brush) | {"Roof": roofs}])])
