"""The guided filter in torch against that in OpenCV and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clearclip_core import Refinement
from clearclip_core.segmentation.guided_filter import GuidedFilter, tile_corners
from clearclip_core.segmentation.on_device import DeviceGuidedFilter

REFINEMENT = Refinement(radius_patches=2, tiles_per_patch=2, epsilon=1e-4)


def picture(height: int, width: int) -> np.ndarray:
    """Blots of 9 px under some noise, and one half that is quite flat."""
    rng = np.random.default_rng(2)
    blots = rng.integers(0, 240, (height // 9 + 1, width // 9 + 1, 3))
    image = blots.repeat(9, axis=0).repeat(9, axis=1)[:height, :width]
    image += rng.integers(0, 16, image.shape)
    image[:, : width // 2] = 90
    return image.astype(np.uint8)


@pytest.mark.parametrize(
    ("precise", "step"), [(torch.float64, 1e-5), (torch.float32, 1e-3)], ids=["float64", "float32"]
)
@pytest.mark.parametrize(
    ("size_hw", "patch_px"), [((40, 61), 8), ((33, 20), 4.3), ((7, 50), 2), ((20, 9), 30)]
)
def test_it_refines_as_on_a_cpu(
    size_hw: tuple[int, int], patch_px: float, precise: torch.dtype, step: float
) -> None:
    """In float32, as on MPS, covariances of flat colours are rounded more."""
    image = picture(*size_hw)
    other = GuidedFilter(image, patch_px, REFINEMENT)
    made = DeviceGuidedFilter(torch.from_numpy(image), other.grid, REFINEMENT.epsilon, precise)
    tiles = np.random.default_rng(3).random((2, *other.tiles_hw))
    expected = np.stack([other.fit(one) for one in tiles])
    functions = made.fit(torch.from_numpy(tiles))
    assert made.at_corners(functions).numpy() == pytest.approx(other.at_corners(expected), abs=step)
    width = size_hw[1]
    for rows in (slice(0, 1), slice(other.tiles_hw[0] - 1, other.tiles_hw[0])):
        values = made.values(functions[1:2], rows, made.colours(rows)).reshape(-1, width)
        corners = tile_corners(expected[1][:, rows.start : rows.stop + 1])[..., 0, :]
        reference = other.row_values(rows.start, corners)[:, :width]
        assert values.numpy() == pytest.approx(reference, abs=step)


def test_bands_cover_all_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "clearclip_core.segmentation.on_device"
    monkeypatch.setattr(f"{module}._BAND_PX", 3 * 4 * 61)
    grid = REFINEMENT.grid((40, 61), patch_px=8)
    made = DeviceGuidedFilter(torch.from_numpy(picture(40, 61)), grid, REFINEMENT.epsilon)
    bands = [(rows.start, rows.stop) for rows in made.row_bands()]
    assert bands == [(0, 3), (3, 6), (6, 9), (9, 10)]
