"""Label maps of annotations whose regions Label Studio's own SDK writes, compared by eye."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter import brush

from backend.errors import BadRequest
from backend.label_studio.annotations import draw_annotation, draw_label_map
from backend.label_studio.label_config_parser import parse_label_config

CONFIG = parse_label_config(
    """<View><Image name="img" value="$image"/><Image name="pages" valueList="$pages"/>
    <BrushLabels name="mask" toName="img,pages">
      <Label value="Car" alias="c"/><Label value="Dog"/></BrushLabels>
    <PolygonLabels name="poly" toName="img"><Label value="Roof"/></PolygonLabels>
    <RectangleLabels name="box" toName="img"><Label value="Dog"/></RectangleLabels></View>"""
)
LABELS = CONFIG.labels_of("img")  # Car, Dog, Roof
CAR, DOG, ROOF, NONE, UNKNOWN = 0, 1, 2, 254, 255


def region(kind: str, control: str, label: str, value: dict[str, Any], **more: Any) -> Any:
    """A region on a picture of 2 x 4 px."""
    size = {"original_width": 4, "original_height": 2, "to_name": "img"}
    return {"type": kind, "from_name": control, "value": value | {kind: [label]}} | size | more


def painted(label: str, *columns: int, **more: Any) -> Any:
    mask = np.zeros((2, 4), np.uint8)
    mask[:, list(columns)] = 255
    value = {"format": "rle", "rle": brush.mask2rle(mask)}
    return region("brushlabels", "mask", label, value, **more)


def boxed(label: str, x: float, width: float) -> Any:
    value = {"x": x, "y": 0, "width": width, "height": 100}
    return region("rectanglelabels", "box", label, value)


def drawn(*regions: Any, image: str = "img", item_index: int | None = None) -> Any:
    made = draw_label_map(regions, CONFIG, image, LABELS, item_index)
    return None if made is None else made[1].tolist()


def test_regions_by_value_or_alias_and_the_later_one_on_top() -> None:
    assert drawn(painted("c", 0, 1), painted("Dog", 1)) == [CAR, DOG, NONE, NONE]
    assert drawn(painted("Dog", 1), painted("Car", 0, 1)) == [CAR, CAR, NONE, NONE]


def test_regions_of_one_label_are_kept_apart_and_the_later_one_is_on_top() -> None:
    result = [painted("Car", 0, 1), boxed("Dog", 0, 100), painted("Car", 1), painted("Dog", 2)]
    made = draw_annotation(result, CONFIG, "img", LABELS)
    assert made is not None
    assert made.truth[1].tolist() == [CAR, CAR, DOG, UNKNOWN]
    assert made.regions[1].tolist() == [1, 3, 4, 0]
    many = draw_annotation([painted("Car", 0)] * 299 + result[2:3], CONFIG, "img", LABELS)
    assert many is not None
    assert many.regions[0].tolist() == [299, 300, 0, 0]
    assert draw_annotation([], CONFIG, "img", LABELS) is None


def test_outlines_are_filled() -> None:
    points = [[50, 0], [100, 0], [100, 100], [50, 100]]
    roof = region("polygonlabels", "poly", "Roof", {"points": points})
    assert drawn(roof) == [NONE, NONE, ROOF, ROOF]


def test_what_only_a_rectangle_covers_is_not_counted() -> None:
    """It bounds its dog, and nobody has said which of its pixels are the dog's."""
    assert drawn(painted("Car", 0, 1), boxed("Dog", 25, 50)) == [CAR, CAR, UNKNOWN, NONE]


def test_other_images_and_other_controls_count_nothing() -> None:
    page = painted("Dog", 0, to_name="pages", item_index=1)
    assert drawn(page) is None
    assert drawn(page, image="pages") is None
    assert drawn(page, image="pages", item_index=1) == [DOG, NONE, NONE, NONE]
    assert drawn(painted("Dog", 0, from_name="other")) is None


def test_broken_regions_and_sizes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="different sizes: 4×2 and 5×2 px"):
        drawn(painted("Car", 0), painted("Dog", 0, original_width=5))
    with pytest.raises(
        BadRequest, match=r'of Car \(made with "mask"\) is broken: .* the size of its picture'
    ):
        drawn(painted("Car", 0, original_width=None))


def test_an_annotation_that_takes_all_memory_or_hours_is_refused_undrawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An annotation says itself how large its picture is."""
    made: list[object] = []
    monkeypatch.setattr("backend.label_studio.annotations.area_mask", made.append)
    monkeypatch.setattr("numpy.full", lambda *each: made.append(each))
    sky = 1 << 20
    huge = painted("Car", 0, original_width=sky, original_height=sky)
    with pytest.raises(BadRequest, match="1048576×1048576 px are 1099511 megapixels"):
        drawn(huge)
    side = 1 << 14
    many = [boxed("Dog", 0, 100) | {"original_width": side, "original_height": side}] * 4100
    with pytest.raises(BadRequest, match="too many regions for a picture of this size: 4100 on"):
        drawn(*many)
    assert made == []
