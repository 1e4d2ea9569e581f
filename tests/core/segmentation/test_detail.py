"""Detail beside the guided filter: kept where scores are clear, left out where they are noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clearclip_core import Scores, Vocabulary
from clearclip_core.segmentation.guided_filter import noise_variance
from clearclip_core.segmentation.refined_argmax import decide_refined
from clearclip_core.segmentation.windows import WindowPlan

#: A street of 12 x 16 patches of 16 px.
PLAN = WindowPlan((192, 256), (192, 256), 256, 256, (16, 16))
WORDS = Vocabulary.of(["sky", "road", "pole"])


def scores_of(labels: np.ndarray, noise: float = 0.0, seed: int = 0) -> Scores:
    """Logits of 4 for the label of each patch (12, 16), and 0 for the others, with noise."""
    logits = 4.0 * (labels == np.arange(3)[:, None, None])
    logits += noise * np.random.default_rng(seed).standard_normal(logits.shape)
    return Scores(torch.from_numpy(logits).float(), PLAN, WORDS, temperature=1.0)


def street() -> tuple[np.ndarray, np.ndarray]:
    """Labels of patches: sky above road; and the picture of them, in two slightly noisy greys."""
    labels = np.repeat(np.arange(12) >= 6, 16).reshape(12, 16).astype(int)
    grey = np.kron(np.where(labels, 90, 180), np.ones((16, 16)))[..., None]
    noise = np.random.default_rng(1).normal(0, 4, (192, 256, 3))
    return labels, (grey + noise).clip(0, 255).astype(np.uint8)


def test_a_thin_object_of_clear_scores_stays_though_no_colour_shows_it() -> None:
    labels, image = street()
    labels[:, 5] = 2
    scores = scores_of(labels)
    plain = scores.decide()[0] == 2
    refined = decide_refined(scores, image)[0] == 2
    assert plain.sum() == pytest.approx(192 * 16, rel=0.1)
    assert (plain & refined).sum() > 0.8 * (plain | refined).sum()


def test_single_patches_of_noisy_scores_go() -> None:
    labels, image = street()
    truth = np.kron(labels, np.ones((16, 16), int))
    wrong = np.zeros(2)
    for seed in range(3):
        scores = scores_of(labels, noise=2.0, seed=seed)
        maps = scores.decide()[0], decide_refined(scores, image)[0]
        wrong += [(one != truth).mean() for one in maps]
    assert wrong[0] > 0.1
    assert wrong[1] < 0.2 * wrong[0]


def test_a_thin_object_is_not_lost_beside_large_ones_where_scores_are_noisy() -> None:
    """A pole that colours show: the windows of the filter have more of the wall than of it."""
    labels, image = street()
    labels[:, 5] = 2
    image[:, 80:96] = (image[:, 80:96] * 0.6).astype(np.uint8)
    truth = np.kron(labels == 2, np.ones((16, 16), bool))
    overlaps = []
    for seed in range(3):
        scores = scores_of(labels, noise=2.5, seed=seed)
        found = [one == 2 for one in (scores.decide()[0], decide_refined(scores, image)[0])]
        overlaps.append([(truth & one).sum() / (truth | one).sum() for one in found])
    plain, refined = np.mean(overlaps, axis=0)
    assert refined > plain + 0.1


def roots_of(logits: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(logits).softmax(dim=0).sqrt().float()


@pytest.mark.parametrize("deviation", [0.05, 0.2])
def test_the_variance_of_noise_on_the_logits_is_found(deviation: float) -> None:
    generator = np.random.default_rng(2)
    logits = generator.normal(0, 1, (40, 30, 30))
    noisy = logits + deviation * generator.standard_normal(logits.shape)
    clear, seen = map(roots_of, (logits, noisy))
    # A sum of many squares is about its mean everywhere.
    assert float(noise_variance([(seen, clear)])) == pytest.approx(deviation**2, rel=0.2)
