"""Agreement of several people, as a whole and by label."""

import tracemalloc
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from clearclip_core import BoolMask, agreement
from clearclip_core.agreement import LabelAgreement, compare_image

SIZE_HW = (40, 60)


def square(top: int, left: int, side: int = 10) -> BoolMask:
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + side, left : left + side] = True
    return mask


LABELS = ["car"]


def label_map(*masks: BoolMask | None) -> Any:
    """Of masks of labels, the map: a later one is on top."""
    made = np.zeros(SIZE_HW, np.uint16)
    for number, mask in enumerate(masks, 1):
        if mask is not None:
            made[mask] = number
    return made


def compared(*masks: BoolMask | None) -> LabelAgreement:
    return compare_image([label_map(mask) for mask in masks], LABELS).labels["car"]


def test_pairs_and_pixels_of_three_people() -> None:
    """Two squares of 100 px that share 50; the third person has left the label out."""
    made = compared(square(5, 5), square(5, 10), None)
    assert [(pair.people, pair.iou) for pair in made.pairs] == [
        ((0, 1), pytest.approx(50 / 150)),
        ((0, 2), 0.0),
        ((1, 2), 0.0),
    ]
    assert made.disputed_px == 150
    same = compared(*[square(3, 4)] * 3)
    assert ({pair.iou for pair in same.pairs}, same.disputed_px) == ({1.0}, 0)


def test_a_pair_that_has_left_the_label_out_both_is_not_counted() -> None:
    assert [pair.people for pair in compared(None, square(5, 5), None).pairs] == [(0, 1), (1, 2)]
    nobody = compared(None, np.zeros(SIZE_HW, bool))
    assert (nobody.pairs, nobody.disputed_px) == ((), 0)


def test_a_pixel_is_in_dispute_where_not_all_have_given_it_the_same_label() -> None:
    rng = np.random.default_rng(5)
    people = [rng.integers(0, 3 + n % 2, SIZE_HW).astype(np.uint16) for n in range(3)]
    made = compare_image(people, ["sky", "tree", "car"])
    expected = np.zeros(SIZE_HW, bool)
    for first, second in combinations(people, 2):
        expected |= first != second
    assert np.array_equal(made.disputed, expected)
    assert made.disputed_share == pytest.approx(expected.mean())
    assert [*made.labels] == ["sky", "tree", "car"]


def test_labels_that_are_taken_for_each_other() -> None:
    """Of three pairs two take 100 px of sky for a car, and one car has 20 px of nothing more."""
    sky = label_map(square(5, 5))
    more = np.zeros(SIZE_HW, bool)
    more[5:15, 15:17] = True
    car = label_map(None, None, square(5, 5) | more)
    made = compare_image([sky, car, sky], ["sky", "tree", "car"])
    pixels = 3 * SIZE_HW[0] * SIZE_HW[1]
    shares = {("sky", "car"): 200 / pixels, ("car", ""): 40 / pixels}
    assert made.confusions == pytest.approx(shares)


def test_memory_is_bounded_where_no_pixel_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_COUNTED_PX", 1 << 12)
    size_hw = (1000, 1000)
    sky, car = (np.full(size_hw, number, np.uint16) for number in (1, 2))
    tracemalloc.start()
    made = compare_image([sky, car], ["sky", "car"])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.confusions == {("sky", "car"): 1.0}
    assert most < 20 * sky.size
