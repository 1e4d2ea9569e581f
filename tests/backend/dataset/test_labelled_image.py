"""Label maps by every rule for overlaps, against a loop over pixels."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from backend.dataset.labelled_image import (
    NO_CLASS,
    ClassTable,
    LabelledImage,
    LabelledRegion,
    Overlap,
)
from backend.errors import DatasetError

CLASSES = ClassTable(("sky", "road", "car"))


def _brute_force(image: LabelledImage, overlap: Overlap) -> list[list[int]]:
    """The winner of each pixel, among the regions that cover it."""

    def rank(region: LabelledRegion) -> tuple[int, int]:
        area = int(region.read_mask().sum()) if overlap == "smallest" else 0
        return area, CLASSES.names.index(region.label)

    found = np.full(image.size_hw, NO_CLASS)
    for y, x in np.ndindex(*image.size_hw):
        if here := [region for region in image.regions if region.read_mask()[y, x]]:
            found[y, x] = min(map(rank, here))[1]
    return found.tolist()


@pytest.mark.parametrize("overlap", get_args(Overlap))
def test_every_rule_agrees_with_a_loop_over_pixels(overlap: Overlap) -> None:
    random = np.random.default_rng(0)
    regions = tuple(
        LabelledRegion.of(
            CLASSES.names[random.integers(3)], random.random((6, 7)) < random.random()
        )
        for _ in range(6)
    )
    image = LabelledImage((6, 7), regions)
    found, covered = image.label_map(CLASSES, overlap)
    assert found.tolist() == _brute_force(image, overlap)
    masks = {name: np.zeros((6, 7), np.bool_) for name in CLASSES.names}
    for region in regions:
        masks[region.label] |= region.read_mask()
    assert covered >= sum(
        np.count_nonzero(mask & (found != CLASSES.value_of(name))) for name, mask in masks.items()
    )


def test_regions_below_one_of_their_label_are_one_object() -> None:
    """Also in a chain and in a ring, which no editor draws; not below another label."""
    below = {"a": "", "b": "a", "c": "b", "d": "e", "e": "d", "f": "gone", "": ""}
    mask = np.ones((1, 1), np.bool_)
    regions = [LabelledRegion.of("car", mask, id=i, parent=p) for i, p in below.items()]
    regions.append(LabelledRegion.of("sky", mask, id="g", parent="a"))
    image = LabelledImage((1, 1), tuple(regions))
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
