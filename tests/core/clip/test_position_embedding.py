"""Resized position embeddings against their definitions, and against Pillow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from clearclip_core.clip.dense_encoder import resize_position_embedding
from clearclip_core.clip.methods import Resize


def cubic(samples: list[float], at: float) -> float:
    """Cubic convolution (Keys 1981) with a = -0.75, edges repeated."""
    a, total = -0.75, 0.0
    for i in range(math.floor(at) - 1, math.floor(at) + 3):
        d = abs(at - i)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        weight = near if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        total += weight * samples[min(max(i, 0), len(samples) - 1)]
    return total


def test_positions_are_resized_by_factor_not_by_size() -> None:
    """As DINO does: sample points lie at (i + 0.5) / factor - 0.5, factor (w + 0.1) / √N."""
    samples = [0.0, 3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0]
    grid = torch.tensor(samples).expand(8, 8).reshape(64, 1)
    resized = resize_position_embedding(torch.cat([grid[:1], grid]), (8, 8), (8, 16))
    assert resized.shape == (1 + 8 * 16, 1)
    row = resized[1:].reshape(8, 16)[4].tolist()
    expected = [cubic(samples, (i + 0.5) / (16.1 / 8) - 0.5) for i in range(16)]
    assert row == pytest.approx(expected, abs=1e-4)
    by_size = [cubic(samples, (i + 0.5) / (16 / 8) - 0.5) for i in range(16)]
    assert row != pytest.approx(by_size, abs=1e-2)


def test_positions_by_size_are_those_of_pillows_bicubic() -> None:
    """Which antialiases, as GEM's resizing does; the grid has rows and columns of their own."""
    generator = torch.Generator().manual_seed(2)
    embedding = torch.randn(1 + 5 * 7, 3, generator=generator)
    for height, width in ((9, 4), (3, 14), (10, 14)):
        resized = resize_position_embedding(embedding, (5, 7), (height, width), how="size")
        assert torch.equal(resized[0], embedding[0])
        for channel in range(3):
            grid = embedding[1:, channel].reshape(5, 7).numpy()
            expected = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
            got = resized[1:, channel].reshape(height, width).numpy()
            assert got == pytest.approx(np.asarray(expected), abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(9, 4), (3, 14), (10, 14), (2, 3)])
def test_bilinear_positions_are_clip_surgerys(height: int, width: int) -> None:
    """Its `interpolate(grid, size, mode="bilinear")`: sample points at (i + 0.5) · old / new - 0.5.

    Corners are not aligned, and nothing is antialiased where a side becomes smaller.
    """
    embedding = torch.randn(1 + 5 * 7, 3, generator=torch.Generator().manual_seed(2))
    resized = resize_position_embedding(embedding, (5, 7), (height, width), how="bilinear")
    grid = embedding[1:].T.reshape(1, 3, 5, 7)
    theirs = torch.nn.functional.interpolate(grid, (height, width), mode="bilinear")
    assert torch.equal(resized[0], embedding[0])
    assert torch.equal(resized[1:], theirs[0].flatten(1).T)


@pytest.mark.parametrize("how", ["factor", "size", "bilinear"])
def test_positions_are_untouched_on_the_trained_grid(how: Resize) -> None:
    """And by factor wherever there are as many."""
    embedding = torch.randn(17, 3, generator=torch.Generator().manual_seed(2))
    assert resize_position_embedding(embedding, (4, 4), (4, 4), how) is embedding
    same_number = resize_position_embedding(embedding, (4, 4), (2, 8), how)
    assert torch.equal(same_number, embedding) == (how == "factor")
