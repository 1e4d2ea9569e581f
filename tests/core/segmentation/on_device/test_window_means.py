"""Window means by products against loops over windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clearclip_core.segmentation.on_device.window_means import DeviceWindowMeans


@pytest.mark.parametrize(
    ("size_hw", "radius"), [((1, 1), 1), ((5, 7), 1), ((4, 9), 3), ((2, 3), 8)]
)
def test_they_are_means_of_what_lies_inside(size_hw: tuple[int, int], radius: int) -> None:
    values = np.random.default_rng(1).random((2, *size_hw))
    means = DeviceWindowMeans(size_hw, radius, torch.empty(0, dtype=torch.float64))
    height, width = size_hw
    for made, after in (
        (means.at_values(torch.from_numpy(values)), 1),
        (means.at_corners(torch.from_numpy(values)), 0),
    ):
        assert made.shape == (2, height + 1 - after, width + 1 - after)
        for y in range(made.shape[1]):
            for x in range(made.shape[2]):
                rows = slice(max(0, y - radius), y + radius + after)
                columns = slice(max(0, x - radius), x + radius + after)
                expected = values[:, rows, columns].mean(axis=(1, 2))
                assert made[:, y, x].numpy() == pytest.approx(expected, abs=1e-12)
