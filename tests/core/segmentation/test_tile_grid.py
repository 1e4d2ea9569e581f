"""The grid of tiles against numbers by hand."""

from __future__ import annotations

import pytest

from clearclip_core.segmentation.tile_grid import TileGrid


def test_tiles_cover_the_image_from_the_top_left_on() -> None:
    grid = TileGrid.of((5, 9), patch_px=8, radius_patches=1.5, tiles_per_patch=2)
    assert (grid.tile_px, grid.radius, grid.tiles_hw) == (4, 3, (2, 3))
    assert [side.tolist() for side in grid.centres_px] == [[1.5, 5.5], [1.5, 5.5, 9.5]]
    assert [side.tolist() for side in grid.corners_px] == [[-0.5, 3.5, 7.5], [-0.5, 3.5, 7.5, 11.5]]


def test_tiles_and_windows_are_never_without_size() -> None:
    grid = TileGrid.of((3, 3), patch_px=0.4, radius_patches=0.1, tiles_per_patch=4)
    assert (grid.tile_px, grid.radius) == (1, 1)


@pytest.mark.parametrize("patch_px", [0.0, -1.0, float("inf"), float("nan")])
def test_a_patch_without_size_is_refused(patch_px: float) -> None:
    with pytest.raises(ValueError, match="`patch_px`"):
        TileGrid.of((3, 3), patch_px, 1.5, 2)
