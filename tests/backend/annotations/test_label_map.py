"""Label maps by every rule, and votes, against loops over pixels."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest

from backend.annotations.label_map import LabelMap, MapRule, Overlap, draw_label_map, vote
from backend.annotations.regions import LabelledRegion
from backend.label_studio.region_reader import Area

LABELS = ("sky", "road", "car")
SIZE_HW = (6, 7)


def boxed(label: str, x: int, y: int, width: int, height: int) -> LabelledRegion:
    sides = {"x": x / 7, "y": y / 6, "width": width / 7, "height": height / 6}
    value = {key: 100 * share for key, share in sides.items()}
    mask = np.zeros(SIZE_HW, np.bool_)
    mask[y : y + height, x : x + width] = True
    area = Area("rectanglelabels", "box", "img", None, SIZE_HW, value)
    return LabelledRegion.of(label, mask, area=area)


def by_pixel(regions: Sequence[LabelledRegion], rule: MapRule) -> list[list[int]]:
    """The number of the region that wins each pixel; one more than all where none is counted."""

    def rank(number: int) -> tuple[bool, int, int, int]:
        region = regions[number - 1]
        area = int(region.read_mask().sum()) if rule.overlap == "smallest" else 0
        order = 0 if rule.overlap == "later" else LABELS.index(region.label)
        return region.is_rectangle, area, order, -number

    found = np.zeros(SIZE_HW, int)
    for y, x in np.ndindex(*SIZE_HW):
        here = [n for n, region in enumerate(regions, 1) if region.read_mask()[y, x]]
        counted = [n for n in here if rule.fills_rectangles or not regions[n - 1].is_rectangle]
        if here:
            found[y, x] = min(counted, key=rank) if counted else len(regions) + 1
    return found.tolist()


@pytest.mark.parametrize("fills", [False, True])
@pytest.mark.parametrize("overlap", get_args(Overlap))
def test_every_rule_agrees_with_a_loop_over_pixels(overlap: Overlap, fills: bool) -> None:
    random = np.random.default_rng(0)
    regions = [
        LabelledRegion.of(LABELS[random.integers(3)], random.random(SIZE_HW) < random.random())
        for _ in range(6)
    ]
    regions.insert(2, boxed("car", 1, 1, 5, 4))
    regions.append(boxed("road", 0, 3, 3, 3))
    rule = MapRule(overlap, fills, LABELS)
    made = draw_label_map(regions, SIZE_HW, rule)
    assert made.regions.tolist() == by_pixel(regions, rule)
    drawn = [each for each in regions if fills or not each.is_rectangle]
    masks = {name: np.zeros(SIZE_HW, np.bool_) for name in LABELS}
    for region in drawn:
        masks[region.label] |= region.read_mask()
    lost = sum(np.count_nonzero(mask & ~made.mask_of(name)) for name, mask in masks.items())
    assert made.covered_px >= lost > 0


def test_values_and_truth_of_a_map() -> None:
    made = LabelMap(np.array([[0, 1, 2, 3, 4]], np.uint8), ("sky", "bird", "sky"))
    assert made.values({"sky": 7}, 9, 8).tolist() == [[9, 7, 9, 7, 8]]
    assert made.truth(["car", "sky"]).tolist() == [[254, 1, 254, 1, 255]]
    assert made.mask([2, 3]).tolist() == [[False, False, True, True, False]]
    with pytest.raises(ValueError, match="at most 254 labels"):
        made.truth(["x"] * 255)


def test_a_map_for_small_pictures_is_every_so_many_rows_and_columns() -> None:
    stripes = np.arange(SIZE_HW[0] * SIZE_HW[1]).reshape(SIZE_HW) % 5 > 2
    regions = [LabelledRegion.of("sky", stripes), boxed("car", 1, 1, 5, 4)]
    rule = MapRule(fills_rectangles=True)
    whole, small = (draw_label_map(regions, SIZE_HW, rule, step) for step in (1, 3))
    assert small.regions.tolist() == whole.regions[::3, ::3].tolist()


def test_more_regions_than_a_byte_counts() -> None:
    dot = np.zeros((1, 2), np.bool_)
    dot[0, 0] = True
    made = draw_label_map([LabelledRegion.of("sky", dot)] * 300, (1, 2))
    assert made.regions.tolist() == [[300, 0]]


@pytest.mark.parametrize("people", [2, 3, 5])
def test_a_vote_has_the_labels_that_more_than_half_agree_on(people: int) -> None:
    random = np.random.default_rng(people)
    given: list[Any] = []  # 0: nothing, 1: sky, 2: road, 3: not counted
    for _ in range(people):
        given.append(random.integers(0, 4, SIZE_HW))
    maps = [LabelMap(each.astype(np.uint8), ("sky", "road")) for each in given]
    other = LabelMap(np.array([0, 2, 1, 3], np.uint8)[given[0]], ("road", "sky"))
    expected = np.full(SIZE_HW, 3)
    for y, x in np.ndindex(*SIZE_HW):
        votes = [int(each[y, x]) for each in given]
        for value in range(3):
            if 2 * votes.count(value) > people:
                expected[y, x] = value
    for some in (maps, [other, *maps[1:]]):
        assert vote(some, ["sky", "road"]).regions.tolist() == expected.tolist()
