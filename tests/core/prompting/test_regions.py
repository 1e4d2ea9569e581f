"""Regions beside those of transformers' own filters, and votes counted by hand."""

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from transformers import Sam2ImageProcessor, Sam2Processor

from clearclip_core import (
    ClickFeatures,
    ClickModel,
    Point,
    RegionFilter,
    Regions,
    Segmentation,
    propose_regions,
)
from clearclip_core.prompting.click_model import load_click_model
from tests.core.conftest import picture
from tests.core.prompting.click_models import KINDS, write_click_model

SIZE_HW = 60, 90


class Blobs(ClickModel):
    """Answers each point by three blobs around it, some of them blurred, of random sizes."""

    def __init__(self) -> None:
        super().__init__("blobs", Mock(), Sam2Processor(Sam2ImageProcessor()))

    def masks_at(
        self, features: object, size_hw: tuple[int, int], points: Sequence[Point]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        answers = [self._at(point.x_px / size_hw[1], point.y_px / size_hw[0]) for point in points]
        log_odds, expected_iou = zip(*answers, strict=True)
        return torch.stack(log_odds), torch.stack(expected_iou)

    def _at(self, x: float, y: float) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(int(1000 * x) * 1000 + int(1000 * y))
        rows, columns = np.mgrid[:32, :32] / 32
        radius, sharpness = rng.uniform(0.1, 0.5, (3, 1, 1)), rng.uniform(20, 400, (3, 1, 1))
        log_odds = (radius - np.hypot(columns - x, rows - y)) * sharpness
        return torch.from_numpy(log_odds).float(), torch.from_numpy(rng.uniform(0.8, 1, 3)).float()


def test_regions_are_those_that_transformers_filters() -> None:
    model, images = Blobs(), Sam2ImageProcessor()
    grid = [Point((x + 0.5) * 90 / 8, (y + 0.5) * 60 / 8) for y in range(8) for x in range(8)]
    log_odds, expected_iou = model.masks_at(None, SIZE_HW, grid)
    filtered = images.filter_masks(log_odds, expected_iou, (32, 32), [0, 0, 32, 32])
    small, _, _, _ = images.post_process_for_mask_generation(*filtered, 0.7)
    assert 10 < len(small) < 100

    numbers = np.full(SIZE_HW, -1)
    shown = log_odds.flatten(0, 1)
    places = [next(p for p, each in enumerate(shown) if torch.equal(each > 0, s)) for s in small]
    for number, place in enumerate(sorted(places, key=lambda p: -int((shown[p] > 0).sum()))):
        (large,) = images.post_process_masks(shown[place][None, None, None], [SIZE_HW])
        numbers[large[0, 0].numpy()] = number

    for batch in (5, 64):
        wanted = RegionFilter(points_per_side=8, points_per_batch=batch)
        found = propose_regions(model, ClickFeatures(()), SIZE_HW, wanted)
        assert found.count == len(small)
        assert np.array_equal(found.numbers, numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_points_are_answered_together_as_each_alone(kind: str, tmp_path: Path) -> None:
    model = load_click_model(str(write_click_model(kind, tmp_path)), "cpu", "fp32")
    features = model.encode([model.prepare(picture(*SIZE_HW))])[0]
    points = [Point(20.0, 20.0), Point(70.5, 30.0), Point(1.0, 59.0)]
    log_odds, expected_iou = model.masks_at(features, SIZE_HW, points)
    for number, point in enumerate(points):
        alone, iou = model.masks(features, SIZE_HW, [point], several=True)
        assert torch.allclose(log_odds[number], alone, atol=1e-6)
        assert torch.allclose(expected_iou[number], iou, atol=1e-6)


def test_nothing_is_proposed_where_no_mask_is_likely() -> None:
    wanted = RegionFilter(points_per_side=2, least_iou=1.0)
    found = propose_regions(Blobs(), ClickFeatures(()), SIZE_HW, wanted)
    assert found.count == 0
    made = random_segmentation(np.random.default_rng(0), SIZE_HW)
    assert np.array_equal(found.vote(made).label_map, made.label_map)


def random_segmentation(rng: np.random.Generator, size_hw: tuple[int, int]) -> Segmentation:
    label_map = rng.integers(-1, 3, size_hw).astype(np.int16)
    confidence = rng.random(size_hw).astype(np.float16)
    return Segmentation(label_map, confidence, ("sky", "sea", "land"))


@pytest.mark.parametrize("seed", range(5))
def test_each_region_takes_the_label_of_most_of_its_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = random_segmentation(rng, (9, 12))
    numbers = rng.integers(-1, 4, (9, 12)).astype(np.int16)
    voted = Regions(numbers, 5).vote(made)
    assert np.array_equal(voted.label_map[numbers < 0], made.label_map[numbers < 0])
    for number in range(4):
        own = numbers == number
        counts = [int((made.label_map[own] == label).sum()) for label in (0, 1, 2, -1)]
        (label,) = set(voted.label_map[own].tolist())
        assert counts[label] == max(counts)
        won = own & (made.label_map == label)
        lost = own & ~won
        assert np.array_equal(voted.confidence[won], made.confidence[won])
        mean = made.confidence[won].astype(np.float64).mean()
        assert np.allclose(voted.confidence[lost].astype(float), mean, atol=1e-3)


def test_a_mask_falls_into_its_things_and_what_is_left() -> None:
    numbers = np.array([[0, 0, 0, 1, 2, 2, -1]], np.int16)
    mask = np.array([[True, True, True, True, True, True, True]])
    found = Regions(numbers, 3).parts(mask, min_px=2)
    assert [each[0].astype(int).tolist() for each in found] == [
        [1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 0, 0, 1],
    ]


def test_a_segmentation_of_another_size_is_refused() -> None:
    made = random_segmentation(np.random.default_rng(0), (9, 12))
    with pytest.raises(ValueError, match="`segmentation`"):
        Regions(np.zeros((9, 13), np.int16), 1).vote(made)
