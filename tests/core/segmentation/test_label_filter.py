"""The label filter against plain loops, and what it keeps and drops."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import DenseFeatures, Label, ScoreOptions, Scores, Vocabulary
from clearclip_core.segmentation.label_filter import filter_labels, label_support
from tests.core.segmentation.test_scores import PLAN, WORDS, features_of, unit
from tests.core.segmentation.test_sliding_windows import plan_of

Floats = npt.NDArray[np.float64]

#: One window of 6 x 6 patches.
ONE = plan_of((96, 96), (96, 96), window_px=96)


def boxes_of(values: Floats) -> npt.NDArray[np.bool_]:
    """The boxes around connected patches above 0.4 of the largest, by flooding."""
    left = {tuple(at) for at in np.argwhere(values > 0.4 * values.max())}
    inside = np.zeros(values.shape, np.bool_)
    while left:
        part, todo = [], [left.pop()]
        while todo:
            y, x = todo.pop()
            part.append((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            todo.extend(near)
        ys, xs = zip(*part, strict=True)
        inside[min(ys) : max(ys) + 1, min(xs) : max(xs) + 1] = True
    return inside


def support_of(patches: Floats, probability: Floats) -> list[float]:
    """The formula, one window, label by label and patch by patch."""
    flat = patches.reshape(-1, patches.shape[-1])
    centred = flat - flat.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    count = len(flat)
    alike = np.array([[max(a @ b, 0.0) ** 4 for b in centred] for a in centred])
    for _ in range(3):
        alike = alike / alike.sum(axis=0)
        alike = alike / alike.sum(axis=1)[:, None]
    alike = np.linalg.matrix_power((alike + alike.T) / 2, 2)
    stretched = (probability - probability.min()) / np.ptp(probability)
    supports = []
    for own, values in zip(probability, stretched, strict=True):
        inside, unit_values = boxes_of(values).ravel(), values.ravel()
        spread = [
            sum(alike[i, j] * unit_values[j] for j in range(count) if inside[j])
            for i in range(count)
        ]
        refined = (np.array(spread) - min(spread)) / (max(spread) - min(spread))
        shared = sum(p * r for p, r in zip(own.ravel(), refined, strict=True))
        supports.append(shared / (own.sum() + refined.sum()))
    return supports


def test_the_support_is_the_formulas() -> None:
    features = features_of()
    scores = Scores.of(features, unit(8, 12, seed=2), WORDS)
    made = label_support(features, scores)
    owners = np.array(WORDS.query_labels)
    for window in range(PLAN.count):
        cosines = features.patches[window].double().numpy() @ unit(8, 12, seed=2).double().numpy().T
        classes = [*range(len(WORDS.labels)), -1]
        best = np.stack([cosines[..., owners == index].max(axis=-1) for index in classes])
        shares = np.exp(50 * (best - best.max()))
        shares /= shares.sum(axis=0)
        expected = support_of(features.patches[window].double().numpy(), shares[:-1])
        np.testing.assert_allclose(made[window], expected, rtol=1e-3, atol=1e-5)


def scene() -> tuple[DenseFeatures, torch.Tensor]:
    """A left half of cat and a right half of grass; on few patches a little of wolf."""
    cat, grass, wolf = torch.eye(8)[:3]
    noise = 0.05 * torch.randn(6, 6, 8, generator=torch.manual_seed(0))
    patches = torch.where(torch.arange(6)[None, :, None] < 3, cat, grass) + noise
    for y, x in ((0, 0), (5, 5), (3, 2)):
        patches[y, x] += 1.05 * wolf
    return DenseFeatures(F.normalize(patches, dim=-1)[None], ONE), torch.eye(8)[:3]


def test_scattered_labels_are_dropped_and_regions_stay() -> None:
    features, words = scene()
    scores = Scores.of(features, words, Vocabulary.of(["cat", "grass", "wolf"]))
    assert np.unique(scores.label_map()).tolist() == [0, 1, 2]
    filtered = filter_labels(features, scores, words, 0.4)
    assert np.unique(filtered.label_map()).tolist() == [0, 1]
    alone = Scores.of(features, words[:2], Vocabulary.of(["cat", "grass"]))
    assert np.array_equal(filtered.label_map(), alone.label_map())


def test_a_label_between_two_that_are_there_is_dropped_though_it_fits_many_patches() -> None:
    """Each half leaks into the other, so that most patches fit the word between both best."""
    cat, grass = torch.eye(8)[:2]
    own = torch.where(torch.arange(6)[None, :, None] < 3, cat, grass)
    patches = F.normalize(own + 0.6 * (cat + grass - own), dim=-1).repeat(6, 1, 1)
    patches[:, 0], patches[:, 5] = cat, grass
    features = DenseFeatures(patches[None], ONE)
    words = torch.stack([cat, grass, F.normalize(cat + grass, dim=0)])
    scores = Scores.of(features, words, Vocabulary.of(["cat", "grass", "lawn cat"]))
    assert (scores.label_map() == 2).mean() > 0.3
    made = filter_labels(features, scores, words, 0.02).label_map()
    assert np.array_equal(made, np.broadcast_to(np.arange(96) // 48, (96, 96)))


def test_contrast_words_and_a_background_stay_and_so_do_all_without_any_support() -> None:
    features, words = scene()
    background = Vocabulary((Label("cat"), Label("grass"), Label("other", ("wolf",), True)))
    scores = Scores.of(features, words, background)
    assert np.array_equal(
        filter_labels(features, scores, words, 0.4).label_map(), scores.label_map()
    )
    contrast = Vocabulary.of([Label("cat"), Label("grass")], contrast=["wolf"])
    contrasted = Scores.of(features, words, contrast)
    made = filter_labels(features, contrasted, words, 0.4).label_map()
    assert np.array_equal(made, contrasted.label_map())
    assert np.unique(made).tolist() == [-1, 0, 1]
    assert filter_labels(features, scores, words, 0.4999) is scores


@pytest.mark.parametrize("support", [-0.1, 0.5, math.nan])
def test_a_support_outside_its_range_is_refused(support: float) -> None:
    with pytest.raises(ValueError, match=r"`label_filter` to be at least 0 and below 0\.5"):
        ScoreOptions(label_filter=support)
