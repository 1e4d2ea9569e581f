"""Detail in torch against that in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clearclip_core import Refinement
from clearclip_core.segmentation import detail
from clearclip_core.segmentation.guided_filter import GuidedFilter
from clearclip_core.segmentation.on_device.detail import fit_with_detail
from clearclip_core.segmentation.on_device.guided_filter import DeviceGuidedFilter
from tests.core.segmentation.on_device.test_guided_filter import picture


@pytest.mark.parametrize("noise", [0.05, 0.3, 2.0])
def test_as_much_is_kept_and_raised(noise: float) -> None:
    image = picture(40, 61)
    other = GuidedFilter(image, patch_px=8, refinement=Refinement())
    made = DeviceGuidedFilter(torch.from_numpy(image), other.grid, Refinement().epsilon)
    rng = np.random.default_rng(5)
    logits = np.linspace(-2, 2, 16)[None, None] * np.array([1.0, -1.0, 0.3])[:, None, None]
    logits = logits + noise * rng.standard_normal((3, 11, 17))[..., :16]
    logits = np.concatenate([logits, logits[..., -1:]], axis=2)
    roots = np.sqrt(np.exp(logits) / np.exp(logits).sum(axis=0)).astype(np.float32)
    knots = roots + np.float32(0.01)
    expected = detail.fit_with_detail(other, roots, knots)
    found = fit_with_detail(made, torch.from_numpy(roots), torch.from_numpy(knots))
    assert found.numpy() == pytest.approx(expected, abs=1e-5)
