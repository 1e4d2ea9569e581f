"""The maps that can win in squares of an image, against all maps at all pixels."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core import Refinement
from clearclip_core.segmentation.guided_filter import GuidedFilter, tile_corners
from clearclip_core.segmentation.tile_candidates import TileCandidates


@pytest.mark.parametrize("size_hw", [(40, 60), (37, 53), (5, 3)])
@pytest.mark.parametrize("cut_from_px", [2, 1000])
def test_who_wins_is_the_tiles_own_map_or_a_candidate(
    monkeypatch: pytest.MonkeyPatch, size_hw: tuple[int, int], cut_from_px: int
) -> None:
    monkeypatch.setattr("clearclip_core.segmentation.tile_parts._CUT_FROM_PX", cut_from_px)
    generator = np.random.default_rng(1)
    image = (generator.integers(0, 40, (*size_hw, 3)) + 100).astype(np.uint8)
    guided_filter = GuidedFilter(image, 20, Refinement(tiles_per_patch=2))
    rows, columns = guided_filter.tiles_hw
    tile = guided_filter.tile_px
    assert tile == 10
    # Four maps: their offsets differ much from place to place, and the colours matter some.
    functions = generator.normal(0, 1, (4, 4, rows + 1, columns + 1)).astype(np.float32)
    functions[:, :3] /= 400
    values = everywhere(guided_filter, functions)
    assert len(np.unique(values.argmax(axis=0))) > 1
    candidates = TileCandidates(guided_filter, functions)
    found = np.zeros(values.shape, np.bool_)
    own = candidates.middle_argmax.repeat(tile, 0).repeat(tile, 1)[: size_hw[0], : size_hw[1]]
    for number in range(4):
        found[number] = own == number
    squares = 0
    for top, left, side, maps, at_corners in candidates.ambiguous_squares():
        assert at_corners.shape == (maps.shape[1], 4, 4, len(top))
        assert side == (5 if cut_from_px == 2 else 10)
        squares += len(top)
        strips = guided_filter.strip_values(top, left, side, at_corners)
        for index, (y, x) in enumerate(zip(top, left, strict=True)):
            inside = np.s_[y : y + side, x : x + side]
            found[(slice(None), *inside)] = False
            for rank, number in enumerate(maps[index]):
                found[number][inside] = True
                expected = values[number][inside]
                made = strips[rank, :, index * side : (index + 1) * side]
                made = made[: expected.shape[0], : expected.shape[1]]
                assert made == pytest.approx(expected, abs=1e-4)
    best = values.max(axis=0)
    assert (np.where(found, values, -np.inf).max(axis=0) == best).all()
    if size_hw == (40, 60):
        assert squares > 0
        assert found.mean() < 0.9  # not all maps everywhere


def everywhere(guided_filter: GuidedFilter, functions: np.ndarray) -> np.ndarray:
    """(K, H, W): each map at each pixel."""
    height, width = guided_filter.image_hw
    made = np.empty((len(functions), height, width), np.float32)
    for row in range(guided_filter.tiles_hw[0]):
        rows = slice(row * guided_filter.tile_px, (row + 1) * guided_filter.tile_px)
        corners = tile_corners(functions[:, :, row : row + 2])[..., 0, :]
        made[:, rows] = guided_filter.row_values(row, corners)[:, : height - rows.start, :width]
    return made
