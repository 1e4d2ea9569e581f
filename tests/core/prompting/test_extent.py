"""How far a click reaches, on grids made by hand."""

from itertools import pairwise

import numpy as np
import pytest

from clearclip_core import BoolMask
from clearclip_core.prompting.extent import Extent, correction_level, extents, three_sizes
from clearclip_core.prompting.prompted_image import FloatMap

CLICK = 20, 20


def disc(radius: float) -> BoolMask:
    y, x = np.mgrid[:40, :60]
    return np.asarray(np.hypot(y - CLICK[0], x - CLICK[1]) < radius)


def rings(*levels: tuple[float, float]) -> FloatMap:
    """Return log-odds that fall in steps: radius and value of each disc, the largest first."""
    log_odds = np.full((40, 60), -9, np.float32)
    for radius, value in levels:
        log_odds[disc(radius)] = value
    return log_odds


def likeliest_of(log_odds: FloatMap, alike: FloatMap) -> BoolMask:
    return extents(log_odds, alike.astype(np.float32), CLICK)[0].mask


def likeliest(log_odds: FloatMap, thing: BoolMask) -> BoolMask:
    return likeliest_of(log_odds, thing.astype(np.float32))


NESTED = rings((18, -1), (11, 2), (5, 8))


def test_the_mask_of_what_is_alike_is_taken_whatever_its_size() -> None:
    for radius in (5, 11, 18):
        assert np.array_equal(likeliest(NESTED, disc(radius)), disc(radius))


def test_without_anything_that_tells_a_stable_mask_is_taken() -> None:
    slope = rings(*((radius, 4 - radius / 2) for radius in range(18, 8, -1)), (8, 8))
    assert np.array_equal(likeliest(slope, np.ones((40, 60), bool)), disc(8))


def test_the_middle_level_keeps_its_place_where_another_is_hardly_likelier() -> None:
    large, small = disc(11), disc(7)
    log_odds = np.where(small, np.float32(8), np.where(large, np.float32(2), np.float32(-9)))
    hardly, clearly = (np.where(small, 1, alike) * large for alike in (0.4, 0.1))
    assert np.array_equal(likeliest_of(log_odds, hardly), large)
    assert np.array_equal(likeliest_of(log_odds, clearly), small)


def test_another_thing_that_is_alike_changes_nothing() -> None:
    other = np.zeros((40, 60), bool)
    other[:, 45:] = True
    log_odds = np.where(other, np.float32(8), NESTED)  # near in class, and not connected
    assert np.array_equal(likeliest(log_odds, disc(11) | other), disc(11))


def test_every_mask_holds_the_click_and_larger_ones_hold_smaller() -> None:
    nowhere = np.full((40, 60), -20, np.float32)
    found = extents(nowhere, np.zeros((40, 60), np.float32), CLICK)
    assert all(each.mask[CLICK] and each.mask.sum() == 1 for each in found)
    ordered = sorted(extents(NESTED, np.ones((40, 60), np.float32), CLICK), key=lambda e: e.level)
    for large, small in pairwise(ordered):
        assert not (small.mask & ~large.mask).any()


def test_masks_come_with_the_likeliest_first() -> None:
    found = [each.likelihood for each in extents(NESTED, disc(11).astype(np.float32), CLICK)]
    assert found == sorted(found, reverse=True)
    assert len(found) == 7


def test_three_sizes_are_offered_in_their_order_and_none_twice() -> None:
    found = extents(NESTED, disc(11).astype(np.float32), CLICK)
    sizes = [each.mask for each in three_sizes(found)]
    assert {int(each.sum()) for each in sizes} == {
        int(disc(radius).sum()) for radius in (18, 11, 5)
    }
    assert np.array_equal(sizes[0], found[0].mask)


def test_a_thing_without_parts_has_one_size() -> None:
    only = rings((9, 20))
    assert len(three_sizes(extents(only, disc(9).astype(np.float32), CLICK))) == 1


def of_sizes(*sizes: tuple[float, int]) -> list[Extent]:
    """Return masks of so many cells at these levels, the likeliest first."""
    return [Extent(level, 0.0, np.arange(100)[None] < count) for level, count in sizes]


@pytest.mark.parametrize(
    ("found", "first_cells", "level"),
    [
        (of_sizes((3, 5), (0, 40), (-3, 90)), 20, 3),  # the likeliest
        (of_sizes((-3, 90), (3, 5), (0, 40)), 50, 0),  # no farther than at the middle level
        (of_sizes((0, 40), (-3, 90), (6, 5), (3, 30)), 10, 3),  # thrice the first one's mask
        (of_sizes((0, 40), (-3, 90), (3, 30)), 2, 3),  # else the smallest that there is
    ],
)
def test_a_correcting_click_keeps_near(found: list[Extent], first_cells: int, level: float) -> None:
    assert correction_level(found, first_cells) == level
