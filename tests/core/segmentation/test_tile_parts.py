"""Parts of tiles: every pixel is in one, and what is bilinear in a tile is so in its parts."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.segmentation.tile_parts import TileParts


@pytest.mark.parametrize("tile_px", [1, 2, 31, 32, 53])
def test_parts_cover_the_tile(tile_px: int) -> None:
    parts = TileParts(tile_px)
    covered = np.zeros((tile_px, tile_px), int)
    for top, left in zip(*parts.offsets_px, strict=True):
        covered[top : top + parts.side_px, left : left + parts.side_px] += 1
    assert covered.min() == 1
    assert len(parts.offsets_px[0]) == len(parts.corner_weights) == (4 if tile_px >= 32 else 1)


@pytest.mark.parametrize("tile_px", [8, 40, 53])
def test_corners_of_parts_lie_on_the_bilinear_function(tile_px: int) -> None:
    parts = TileParts(tile_px)

    def function(y: float, x: float) -> float:
        return 1 + 2 * y + 3 * x + 5 * x * y

    corners = np.array([function(0, 0), function(0, 1), function(1, 0), function(1, 1)])
    for weights, top, left in zip(parts.corner_weights, *parts.offsets_px, strict=True):
        bottom, right = top + parts.side_px, left + parts.side_px
        ends = [(top, left), (top, right), (bottom, left), (bottom, right)]
        expected = [function(y / tile_px, x / tile_px) for y, x in ends]
        assert weights @ corners == pytest.approx(expected, abs=1e-5)
