"""Textures: tiles without a seam, as strong as their material says."""

import numpy as np
import pytest

from clearclip_core import SCENE_LABELS
from clearclip_core.demo.textures import LABEL_OF_MATERIAL, MATERIALS, SHADES, TILE, texture_bank

NAMES = list(MATERIALS)


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """(shades, materials, TILE, TILE) int16."""
    return texture_bank().reshape(SHADES, len(MATERIALS), TILE, TILE)


def test_every_label_has_a_material() -> None:
    assert set(LABEL_OF_MATERIAL.tolist()) == set(range(len(SCENE_LABELS)))


@pytest.mark.parametrize("name", NAMES)
def test_a_tile_goes_on_where_it_begins_again(tiles: np.ndarray, name: str) -> None:
    """Steps over the border are no larger than the largest ones inside."""
    for tile in tiles[:, NAMES.index(name)].astype(int):
        for across in (tile, tile.T):
            inside = np.abs(np.diff(across, axis=0)).mean(axis=1)
            assert np.abs(across[0] - across[-1]).mean() <= inside.max() * 1.1


@pytest.mark.parametrize("name", NAMES)
def test_a_texture_is_as_strong_as_its_material_says(tiles: np.ndarray, name: str) -> None:
    strength = MATERIALS[name][2]
    levels = tiles[:, NAMES.index(name)]
    assert np.abs(levels).max() <= 1.2 * strength
    assert np.ptp(levels) > strength / 2
    assert abs(levels.mean()) < 0.15 * strength, "it makes nothing lighter"
