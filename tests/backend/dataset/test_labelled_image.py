"""Objects of regions, and tables of classes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from backend.annotations.label_map import draw_label_map
from backend.annotations.regions import LabelledRegion
from backend.dataset.labelled_image import ClassTable, LabelledImage
from backend.errors import DatasetError

CLASSES = ClassTable(("sky", "road", "car"))


def test_regions_below_one_of_their_label_are_one_object() -> None:
    """Also in a chain and in a ring, which no editor draws; not below another label."""
    below = {"a": "", "b": "a", "c": "b", "d": "e", "e": "d", "f": "gone", "": ""}
    mask = np.ones((1, 1), np.bool_)
    regions = [LabelledRegion.of("car", mask, id=i, parent=p) for i, p in below.items()]
    regions.append(LabelledRegion.of("sky", mask, id="g", parent="a"))
    image = LabelledImage((1, 1), tuple(regions), partial(draw_label_map, regions, (1, 1)))
    found = [[each.id for each in thing.regions] for thing in image.objects()]
    assert ["a", "b", "c"] in found
    assert ["g"] in found
    assert sorted(i for each in found for i in each) == sorted([*below, "g"])
    assert [each.label for each in image.objects(by_label=True)] == ["car", "sky"]


@pytest.mark.parametrize("names", [[], ["sky", "sky"], [str(i) for i in range(256)]])
def test_a_table_refuses_what_a_label_map_cannot_hold(names: list[str]) -> None:
    with pytest.raises(DatasetError):
        ClassTable(tuple(names))


def test_a_background_has_the_value_0_and_is_no_object() -> None:
    table = CLASSES.with_background("other")
    assert table.all_names == ("other", "sky", "road", "car")
    assert table.value_of("sky") == 1
    assert CLASSES.with_background("road").all_names == ("road", "sky", "car")
