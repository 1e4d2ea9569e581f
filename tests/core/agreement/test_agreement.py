"""Agreement of several people, as a whole and by label."""

from __future__ import annotations

import tracemalloc
from itertools import combinations, permutations

import numpy as np
import pytest

from clearclip_core import BoolMask
from clearclip_core.agreement import agreement
from clearclip_core.agreement.agreement import (
    BinaryValues,
    LabelAgreement,
    compare_image,
    compare_people,
)
from clearclip_core.evaluation.metrics import Edge, MaskOverlap, boundary_f, tolerance_px

SIZE_HW = (40, 60)


def square(top: int, left: int, side: int = 10) -> BoolMask:
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def compared(*masks: BoolMask | None) -> LabelAgreement:
    return compare_people(masks, np.zeros(SIZE_HW, bool))


def test_pairs_pixels_and_values_of_three_people() -> None:
    """Two squares of 100 px that share 50; the third person has left the label out."""
    made = compared(square(5, 5), square(5, 10), None)
    assert [(pair.people, pair.iou) for pair in made.pairs] == [
        ((0, 1), pytest.approx(50 / 150)),
        ((0, 2), 0.0),
        ((1, 2), 0.0),
    ]
    assert [pair.boundary_f for pair in made.pairs][1:] == [0.0, 0.0]
    assert made.disputed_px == 150
    assert (made.values.ones, made.values.values) == (200, 3 * 40 * 60)
    assert made.values.disagreement == pytest.approx(150 * 2 * 2 / 2)


def test_a_pair_that_has_left_the_label_out_both_is_not_counted() -> None:
    assert [pair.people for pair in compared(None, square(5, 5), None).pairs] == [(0, 1), (1, 2)]
    nobody = compared(None, np.zeros(SIZE_HW, bool))
    assert (nobody.pairs, nobody.disputed_px) == ((), 0)
    assert (nobody.values.ones, nobody.values.values) == (0, 2 * 40 * 60)


@pytest.mark.parametrize("corner", [(0, 0), (30, 50), (5, 7)])
def test_a_part_of_the_image_is_compared_as_the_whole_would_be(corner: tuple[int, int]) -> None:
    """Masks at the border have no edge there."""
    masks = [square(*corner), square(max(0, corner[0] - 1), max(0, corner[1] - 3)), square(20, 20)]
    tolerance = tolerance_px(SIZE_HW)
    edges = [Edge.of(mask, tolerance) for mask in masks]
    for pair in compared(*masks).pairs:
        first, second = pair.people
        assert pair.iou == pytest.approx(MaskOverlap.of(masks[first], masks[second]).iou)
        assert pair.boundary_f == boundary_f(edges[first], edges[second])


def test_all_who_agree_have_no_dispute() -> None:
    made = compared(*[square(3, 4)] * 3)
    assert {(pair.iou, pair.boundary_f) for pair in made.pairs} == {(1.0, 1.0)}
    assert (made.disputed_px, made.values.alpha) == (0, 1.0)


def test_a_pixel_is_in_dispute_where_not_all_have_given_it_the_same_labels() -> None:
    rng = np.random.default_rng(5)
    names = ["sky", "tree", "car"]
    people = [{name: rng.random(SIZE_HW) < 0.3 for name in names[: 2 + n % 2]} for n in range(3)]
    made = compare_image(people, names, SIZE_HW)
    stacks = [np.stack([own.get(n, np.zeros(SIZE_HW, bool)) for n in names]) for own in people]
    expected = np.zeros(SIZE_HW, bool)
    for first, second in combinations(stacks, 2):
        expected |= (first != second).any(axis=0)
    assert np.array_equal(made.disputed, expected)
    assert made.disputed_share == pytest.approx(expected.mean())
    assert [*made.labels] == names
    assert [pair.iou for pair in made.labels["car"].pairs] == [0.0, 0.0], "one has painted it"


def test_labels_that_are_taken_for_each_other() -> None:
    """Of three pairs two take 100 px of sky for a car, and one car has 20 px of nothing more."""
    sky = {"sky": square(5, 5)}
    more = np.zeros(SIZE_HW, bool)
    more[5:15, 15:17] = True
    car = {"car": square(5, 5) | more}
    made = compare_image([sky, car, sky], ["sky", "tree", "car"], SIZE_HW)
    pixels = 3 * SIZE_HW[0] * SIZE_HW[1]
    assert made.confusions == {
        ("sky", "car"): pytest.approx(200 / pixels),
        ("car", ""): pytest.approx(40 / pixels),
    }


def test_of_labels_that_overlap_the_last_counts_for_confusions() -> None:
    both = {"sky": square(5, 5), "car": square(5, 5)}
    made = compare_image([both, {"car": square(5, 5)}], ["sky", "car"], SIZE_HW)
    assert made.confusions == {}
    assert made.disputed_share == pytest.approx(100 / (40 * 60)), "it is a dispute all the same"


def test_memory_is_a_few_bytes_a_pixel_where_no_pixel_agrees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two of the pixels' labels of each, and three bytes of each mask that is compared."""
    monkeypatch.setattr(agreement, "_COUNTED_PX", 1 << 12)
    size_hw = (1000, 1000)
    whole = np.ones(size_hw, bool)
    tracemalloc.start()
    made = compare_image([{"sky": whole}, {"car": whole}], ["sky", "car"], size_hw)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.confusions == {("sky", "car"): 1.0}
    assert most < 20 * whole.size


def test_the_example_of_the_paper() -> None:
    """Two observers of ten units, section A of the paper: alpha is 0.095."""
    meg, owen = (0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0)
    counts = np.bincount(np.add(meg, owen), minlength=3)
    assert BinaryValues.of(counts.tolist()).alpha == pytest.approx(0.095, abs=5e-4)


def by_pairs(units: list[list[int]]) -> float:
    """1 - Do / De, with all ordered pairs of values of a unit, and of all values."""
    values = [value for unit in units for value in unit]
    observed = sum(
        sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units
    ) / len(values)
    pairs = len(values) * (len(values) - 1)
    return 1 - observed / (sum(a != b for a, b in permutations(values, 2)) / pairs)


def test_units_of_different_numbers_of_people_are_added() -> None:
    rng = np.random.default_rng(3)
    units = [rng.integers(0, 2, people).tolist() for people in (2, 3, 5) for _ in range(6)]
    summed = BinaryValues()
    for people in (2, 3, 5):
        counts = np.bincount([sum(u) for u in units if len(u) == people], minlength=people + 1)
        summed += BinaryValues.of(counts.tolist())
    assert summed.alpha == pytest.approx(by_pairs(units))


def test_perfect_agreement_and_none_at_all() -> None:
    assert BinaryValues.of([3, 0, 5]).alpha == 1
    assert BinaryValues.of([3, 0, 0]).alpha is None, "all values are equal"
    assert BinaryValues.of([0, 0, 4]).alpha is None
    assert BinaryValues().alpha is None
