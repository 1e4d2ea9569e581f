"""Chosen images differ from each other."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F

from clearclip_core import DenseFeatures, Segmenter, render_scene
from clearclip_core.wording.vocabulary_check import image_vector, k_center


def radius(points: np.ndarray, centers: tuple[int, ...]) -> float:
    distances = np.linalg.norm(points[:, None] - points[None, list(centers)], axis=-1)
    return float(distances.min(axis=1).max())


def test_no_point_is_twice_as_far_from_a_chosen_one_as_in_the_best_choice() -> None:
    """Gonzalez' bound, against all choices."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        points = rng.normal(size=(12, 4))
        chosen = k_center(torch.from_numpy(points), 3)
        best = min(radius(points, centers) for centers in combinations(range(12), 3))
        assert len(set(chosen)) == 3
        assert radius(points, tuple(chosen)) <= 2 * best + 1e-9


def test_equal_images_are_each_chosen_once_and_last() -> None:
    points = torch.tensor([[0.0, 0.0]] * 3 + [[5.0, 0.0], [0.0, 5.0]])
    chosen = k_center(points, 9)
    assert sorted(chosen) == [0, 1, 2, 3, 4]
    assert {3, 4} <= set(chosen[:3])
    assert k_center(points[:0], 2) == k_center(points, 0) == []


def test_an_image_is_the_mean_of_its_patches() -> None:
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32", short_side_px=64)
    features: DenseFeatures = segmenter.encode(render_scene(10_000_000, (64, 96)).image)
    patches = [patch for window in features.patches for row in window for patch in row]
    mean = torch.stack(patches).mean(dim=0)
    assert torch.allclose(image_vector(features), F.normalize(mean, dim=0), atol=1e-5)
