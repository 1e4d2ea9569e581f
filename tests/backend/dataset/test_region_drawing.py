"""Objects of one label: united where an editor wants one region, apart where it wants outlines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter.brush import decode_rle

from backend.dataset.class_mapping import ClassMapping
from backend.dataset.labelled_image import LabelledRegion
from backend.dataset.mask_source import MaskSource
from backend.dataset.region_drawing import RegionDrawer
from backend.dataset.task_matching import Matched
from backend.errors import DatasetError
from backend.label_studio.image_loader import ImageShape
from backend.label_studio.image_names import ImagePlace
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task

LEFT, RIGHT = np.zeros((2, 20, 30), np.bool_)
LEFT[5:15, :12] = True
RIGHT[5:15, 8:20] = True  # they overlap
REGIONS = (LabelledRegion.of("car", LEFT, score=0.5), LabelledRegion.of("car", RIGHT))
MATCHED = Matched(
    MaskSource("a", "a.json", lambda size_hw: REGIONS), ImagePlace(Task(3, 7, {}), "img", "a.jpg")
)
SHAPE = ImageShape((20, 30))


def drawn(control: str, **options: Any) -> list[dict[str, Any]]:
    config = parse_label_config(
        f'<View><Image name="img" value="$image"/><{control} name="c" toName="img" '
        f'model_score_threshold="0.9"><Label value="car"/></{control}></View>'
    )
    return list(RegionDrawer(ClassMapping(config), **options).draw(MATCHED, SHAPE))


def test_a_brush_has_one_region_for_each_label_or_object() -> None:
    (both,) = drawn("BrushLabels")
    mask = decode_rle(both["value"]["rle"]).reshape(20, 30, 4)[..., 3] > 0
    np.testing.assert_array_equal(mask, LEFT | RIGHT)
    assert both["score"] == 0.75
    apart = drawn("BrushLabels", instances=True)
    assert [entry["score"] for entry in apart] == [0.5, 1.0], "thresholds are for the model"
    assert len({entry["id"] for entry in apart}) == 2


@pytest.mark.parametrize("control", ["PolygonLabels", "RectangleLabels"])
def test_outlines_are_one_for_each_object(control: str) -> None:
    assert len(drawn(control)) == 2


def test_a_mask_of_another_size_is_refused() -> None:
    config = parse_label_config(
        '<View><Image name="img" value="$image"/><BrushLabels name="c" toName="img">'
        '<Label value="car"/></BrushLabels></View>'
    )
    drawer = RegionDrawer(ClassMapping(config))
    with pytest.raises(DatasetError, match=r"a\.json is 30×20 px, but its picture 20×30 px"):
        drawer.check(MATCHED, ImageShape((30, 20)))
