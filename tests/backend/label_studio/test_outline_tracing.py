"""Rings filled again by both rules that readers fill polygons by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import label

from backend.label_studio.region_writer import MAX_HOLES, join_rings, simplify, trace_rings

Mask = Any
EIGHT = np.ones((3, 3))


def fill(ring: Any, size_hw: tuple[int, int]) -> tuple[Mask, Mask]:
    """The pixels inside a ring by the even-odd rule, and by a winding number that is not 0.

    A ray to the right of a pixel's centre crosses edges that go down and edges that go up.
    """
    down, up = np.zeros(size_hw, int), np.zeros(size_hw, int)
    for (x0, y0), (x1, y1) in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
        for row in range(min(y0, y1), max(y0, y1)):
            at = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            (down if y1 > y0 else up)[row, np.arange(size_hw[1]) + 0.5 < at] += 1
    return (down + up) % 2 == 1, down != up


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()))
def test_the_ring_of_an_island_bounds_its_pixels_and_no_others(mask: Mask) -> None:
    islands, count = label(mask, EIGHT)
    for number in range(1, count + 1):
        island = islands == number
        ring = join_rings(*trace_rings(island))
        even_odd, nonzero = fill(ring, island.shape)
        assert (even_odd == island).all()
        assert (nonzero == island).all()


def test_a_ring_has_no_points_on_its_lines() -> None:
    outer, (hole,) = trace_rings(np.pad(np.zeros((3, 5), np.bool_), 2, constant_values=True))
    assert sorted(outer.tolist()) == [[0, 0], [0, 7], [9, 0], [9, 7]]
    assert sorted(hole.tolist()) == [[2, 2], [2, 5], [7, 2], [7, 5]]
    assert len(join_rings(outer, [hole])) == 4 + 4 + 2, "there and back once"


def test_a_ring_keeps_three_points() -> None:
    outer, _ = trace_rings(np.ones((1, 40), np.bool_))
    assert sorted(simplify(outer, 3.0).tolist()) == [[0, 0], [0, 1], [40, 0], [40, 1]]


@pytest.mark.parametrize("tolerance_px", [0.5, 1.0, 2.0])
def test_no_corner_is_farther_from_a_simpler_ring_than_the_tolerance(tolerance_px: float) -> None:
    y, x = np.mgrid[:90, :120]
    outer, _ = trace_rings(np.hypot(x - 60, y - 45) < 40)
    simpler = simplify(outer, tolerance_px)
    assert 3 <= len(simpler) < len(outer)
    start, end = simpler, np.roll(simpler, -1, axis=0)
    along = end - start
    for corner in outer:
        share = ((corner - start) * along).sum(1) / np.square(along).sum(1)
        nearest = start + share.clip(0, 1)[:, None] * along
        assert np.hypot(*(corner - nearest).T).min() <= tolerance_px + 1e-6


def test_a_sieve_loses_its_largest_holes_only() -> None:
    sieve = np.ones((160, 160), np.bool_)
    sieve[2::4, 2::4] = False
    sieve[2:9, 2:9] = False
    outer, holes = trace_rings(sieve)
    assert len(holes) > MAX_HOLES
    even_odd, _ = fill(join_rings(outer, holes), sieve.shape)
    assert not even_odd[4, 4]
    assert (~even_odd).sum() == 81 - 4 * 8 + MAX_HOLES - 1
