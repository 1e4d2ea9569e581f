"""What a device computes, against the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from clearclip_core import Segmentation
from clearclip_core.segmentation import refined_argmax
from clearclip_core.segmentation.guided_filter import Refinement, mean_colours
from clearclip_core.segmentation.refined_argmax import DevicePixels, DeviceSegmentation, find_runs
from tests.core.segmentation.test_masks import segmentation_by_chance
from tests.core.segmentation.test_refined_argmax import CUDA

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
    ("size_hw", "patch_px"), [((40, 61), 8), ((33, 20), 4.3), ((7, 50), 2), ((20, 9), 30)]
)
def test_mean_colours_are_those_of_a_cpu(size_hw: tuple[int, int], patch_px: float) -> None:
    image = picture(*size_hw)
    grid = REFINEMENT.grid(size_hw, patch_px)
    expected = mean_colours(image, grid).transpose(2, 0, 1) / 255
    made = DevicePixels(torch.from_numpy(image), grid).mean_colours()
    assert made.numpy() == pytest.approx(expected, abs=1e-12)


DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]


def both(seed: int, device: str) -> tuple[Segmentation, DeviceSegmentation]:
    here = segmentation_by_chance(seed)
    there = (torch.from_numpy(array).to(device) for array in (here.label_map, here.confidence))
    return here, DeviceSegmentation(*there, here.labels)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("band_px", [1 << 24, 50])
def test_runs_and_their_sums_are_those_of_the_pixels(
    monkeypatch: pytest.MonkeyPatch, device: str, band_px: int
) -> None:
    monkeypatch.setattr(refined_argmax, "_RUNS_BAND_PX", band_px)
    label_map = np.array([[0, 0, 2], [2, 2, -1], [-1, 1, 1]], np.int16)
    confidence = np.arange(9, dtype=np.float16).reshape(3, 3) / 8
    runs, sums = find_runs(*(torch.from_numpy(one).to(device) for one in (label_map, confidence)))
    assert runs.starts.tolist() == [0, 2, 3, 5, 6, 7]
    assert runs.starts.dtype == np.int32
    assert runs.labels.tolist() == [0, 2, 2, -1, -1, 1]
    assert runs.size_hw == (3, 3)
    assert (8 * sums).tolist() == [1, 2, 7, 5, 6, 15]


@pytest.mark.parametrize("device", DEVICES)
def test_masks_and_their_confidence_are_those_of_numpy(device: str) -> None:
    for seed in range(30):
        here, there = both(seed, device)
        for thresholds in ({}, {"b": 0.5, "c": 0.25}):
            ours, theirs = (each.above(thresholds).label_masks(3, 5) for each in (here, there))
            assert theirs.labels == ours.labels
            for label in ours.labels:
                assert np.array_equal(theirs.mask(label), ours.mask(label))
                mean = pytest.approx(ours.mean_confidence(label), rel=1e-12)
                assert theirs.mean_confidence(label) == mean
        numbers = np.zeros(len(here.labels) + 1, int)  # one mask of all
        ours, theirs = (each.label_masks(0, 0, numbers) for each in (here, there))
        assert ours.mask(0).all()
        assert theirs.mask(0).all()


@pytest.mark.parametrize("device", DEVICES)
def test_pixels_leave_the_device_only_when_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    here, there = both(1, device)
    copied: list[Any] = []
    copy = torch.Tensor.cpu

    def spy(tensor: torch.Tensor) -> torch.Tensor:
        copied.append(tuple(tensor.shape))
        return copy(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", spy)
    assert there.above({"a": 0.0}) is there
    masks = there.above({"a": 0.3}).label_masks(3, 3)
    assert masks.mean_confidence(0) > 0
    assert there.size_hw == here.size_hw
    assert there.size_hw not in copied
    assert np.array_equal(there.label_map, here.label_map)
    assert np.array_equal(there.confidence, here.confidence)
    assert copied[-2:] == [here.size_hw] * 2
