"""Boundary F-measure against a search through all pairs of edge pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clearclip_core import BoolMask
from clearclip_core.evaluation.metrics import Edge, boundary_f, tolerance_px


def edge_pixels(mask: BoolMask) -> list[tuple[int, int]]:
    """Pixels of a mask beside one inside the image that is not of it."""
    height, width = mask.shape
    return [
        (y, x)
        for y, x in np.argwhere(mask)
        if any(
            0 <= y + dy < height and 0 <= x + dx < width and not mask[y + dy, x + dx]
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
        )
    ]


def searched(first: BoolMask, second: BoolMask, tolerance: float) -> float | None:
    edges = edge_pixels(first), edge_pixels(second)
    if not edges[0] and not edges[1]:
        return None
    shares = [
        sum(any(math.dist(p, q) <= tolerance for q in other) for p in own) / max(1, len(own))
        for own, other in (edges, edges[::-1])
    ]
    return 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0


@pytest.mark.parametrize("tolerance", [1, 2, 3])
def test_it_is_what_a_search_finds(tolerance: int) -> None:
    rng = np.random.default_rng(tolerance)
    rows, columns = np.mgrid[:24, :30]
    for _ in range(5):
        masks = []
        for _ in range(2):
            y, x, radius = rng.uniform(4, 20), rng.uniform(4, 26), rng.uniform(3, 9)
            masks.append((rows - y) ** 2 + (columns - x) ** 2 < radius**2)
        found = boundary_f(*(Edge.of(mask, tolerance) for mask in masks))
        assert found == pytest.approx(searched(masks[0], masks[1], tolerance))
        assert boundary_f(*(Edge.of(mask, tolerance) for mask in masks[::-1])) == found


def test_edges_within_the_tolerance_match_and_others_do_not() -> None:
    """Two halves of an image: the edges are straight lines, as far apart as the halves differ."""
    halves = [np.arange(40)[None].repeat(9, 0) >= start for start in (20, 22, 23)]
    edges = [Edge.of(half, 2) for half in halves]
    assert [edge.count_px for edge in edges] == [9, 9, 9], "the border of the image is no edge"
    assert boundary_f(edges[0], edges[1]) == 1
    assert boundary_f(edges[0], edges[2]) == 0


def test_a_mask_without_an_edge() -> None:
    whole, part = np.ones((8, 9), bool), np.zeros((8, 9), bool)
    part[2:5, 3:6] = True
    edge, no_edge = Edge.of(part, 1), Edge.of(whole, 1)
    assert (edge.count_px, no_edge.count_px) == (8, 0)
    for other in (no_edge, None):
        assert boundary_f(edge, other) == boundary_f(other, edge) == 0
    assert boundary_f(no_edge, no_edge) is None
    assert boundary_f(None, None) is None


def test_the_tolerance_is_that_of_davis() -> None:
    """0.8 % of the diagonal, rounded up: of 1080p's 2202.9 px it is 17.6 px."""
    assert tolerance_px((1080, 1920)) == 18
    assert tolerance_px((10, 10)) == 1
