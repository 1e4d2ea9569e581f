"""Objects of one label: united where an editor wants one region, apart where it wants outlines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter.brush import decode_rle
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.ndimage import binary_fill_holes

from backend.annotations.regions import LabelledRegion
from backend.dataset.mask_import import RegionDrawer
from backend.dataset.mask_source import MaskSource
from backend.dataset.matching import ClassMapping, ImagePlace, Matched
from backend.errors import DatasetError
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from clearclip_core import SCENE_LABELS, render_scene

LEFT, RIGHT = np.zeros((2, 20, 30), np.bool_)
LEFT[5:15, :12] = True
RIGHT[5:15, 8:20] = True  # they overlap
REGIONS = (LabelledRegion.of("car", LEFT, score=0.5), LabelledRegion.of("car", RIGHT))
MATCHED = Matched(
    MaskSource("a", "a.json", lambda size_hw: REGIONS), ImagePlace(Task(3, 7, {}), "img", "a.jpg")
)
SIZE_HW = (20, 30)


def config(control: str) -> LabelConfig:
    return parse_label_config(
        f'<View><Image name="img" value="$image"/><{control} name="c" toName="img" '
        f'model_score_threshold="0.9"><Label value="car"/></{control}></View>',
        None,
    )


def drawn(control: str, **options: Any) -> list[dict[str, Any]]:
    return list(RegionDrawer(ClassMapping(config(control)), **options).draw(MATCHED, SIZE_HW))


def test_regions_are_one_for_each_label_or_object() -> None:
    (both,) = drawn("BrushLabels")
    mask = decode_rle(both["value"]["rle"]).reshape(20, 30, 4)[..., 3] > 0
    np.testing.assert_array_equal(mask, LEFT | RIGHT)
    assert both["score"] == 0.75
    apart = drawn("BrushLabels", instances=True)
    assert [entry["score"] for entry in apart] == [0.5, 1.0], "thresholds are for the model"
    assert len({entry["id"] for entry in apart}) == 2
    for control in ("PolygonLabels", "RectangleLabels"):
        assert len(drawn(control)) == 2, "outlines are one for each object"


def test_parts_of_one_object_lie_below_the_first() -> None:
    """As an export reads them; a label map does not know which islands belong together."""
    regions = (LabelledRegion.of("car", LEFT & ~RIGHT | np.roll(LEFT, 17, axis=1)),)

    def parents(has_objects: bool) -> list[Any]:
        source = MaskSource("a", "a.json", lambda _: regions, has_objects=has_objects)
        drawer = RegionDrawer(ClassMapping(config("PolygonLabels")))
        entries = list(drawer.draw(Matched(source, MATCHED.place), SIZE_HW))
        return [entry.get("parentID") == entries[0]["id"] for entry in entries]

    assert parents(True) == [False, True]
    assert parents(False) == [False, False]


def test_a_region_without_an_area_costs_itself() -> None:
    regions = (*REGIONS, LabelledRegion.of("car", LEFT & ~LEFT, id="line 2"))
    matched = Matched(MaskSource("a", "a.txt", lambda _: regions), MATCHED.place)
    drawer = RegionDrawer(ClassMapping(config("BrushLabels")))
    names, (reason,) = drawer.check(matched, SIZE_HW)
    assert names == {"car": 2}
    assert reason.startswith("line 2 is left out: it has no mask")
    assert [entry["score"] for entry in drawer.draw(matched, SIZE_HW)] == [0.75], "of the others"


def test_a_mask_of_another_size_is_refused() -> None:
    drawer = RegionDrawer(ClassMapping(config("BrushLabels")))
    told = Matched(MaskSource("a", "a.json", lambda _: (), size_hw=(20, 30)), MATCHED.place)
    for matched in (MATCHED, told):
        with pytest.raises(DatasetError, match=r"a\.json is 30×20 px, but its picture 20×30 px"):
            drawer.check(matched, (30, 20))


@pytest.mark.parametrize("seed", [702, 706])
def test_polygons_cover_drawn_masks_and_leave_their_holes_out(seed: int) -> None:
    """pycocotools draws the polygons."""
    size_hw = (750, 1000)
    scene = Image.fromarray(render_scene(seed).label_map.astype(np.int32)).resize(size_hw[::-1], 0)
    values = np.asarray(scene)
    masks = {value: values == value for value in np.unique(values[values >= 0]).tolist()}
    assert any((binary_fill_holes(mask) != mask).any() for mask in masks.values())
    for value, mask in masks.items():
        regions = (LabelledRegion.of("car", mask),)
        source = MaskSource("a", "a.json", lambda _, regions=regions: regions)
        drawer = RegionDrawer(ClassMapping(config("PolygonLabels")))
        matched = Matched(source, MATCHED.place)
        points = [
            (np.array(each["value"]["points"]) * size_hw[::-1] / 100).ravel().tolist()
            for each in drawer.draw(matched, size_hw)
        ]
        drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(points, *size_hw)))
        both, either = (drawn & mask).sum(), (drawn | mask).sum()
        assert both / either >= 0.99, SCENE_LABELS[value]
