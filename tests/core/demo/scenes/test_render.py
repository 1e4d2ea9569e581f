"""The scenes: the same for the same seed, labelled everywhere, and not to be solved by colour."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from clearclip_core.demo.scenes.render import render_scene
from clearclip_core.demo.scenes.scene import HELD_OUT_SEEDS, SCENE_LABELS, SYNONYMS, Scene

SMALL_HW = (112, 150)


def test_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    first, again, other = (render_scene(seed, SMALL_HW) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.label_map, again.label_map)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("size_hw", [(448, 597), (600, 450), (16, 16), (37, 301), (1000, 1400)])
def test_any_size_and_every_pixel_has_a_label(size_hw: tuple[int, int]) -> None:
    scene = render_scene(11, size_hw)
    assert scene.image.shape == (*size_hw, 3)
    assert scene.image.dtype == np.uint8
    assert scene.label_map.shape == size_hw
    assert scene.label_map.min() >= 0
    assert scene.label_map.max() < len(SCENE_LABELS)


def test_a_scene_shows_the_same_things_at_another_size() -> None:
    large = render_scene(5, (448, 448)).label_map[2::4, 2::4]
    small = render_scene(5, (112, 112)).label_map
    assert (large == small).mean() > 0.97


def test_every_label_is_drawn_often_and_large_enough_to_be_found() -> None:
    shares = np.stack(
        [
            np.bincount(render_scene(seed, SMALL_HW).label_map.ravel(), minlength=18) / 16_800
            for seed in range(300)
        ]
    )  # (scenes, labels)
    assert len(SCENE_LABELS) == len(set(SCENE_LABELS)) == 18
    assert ((shares > 0.003).mean(axis=0) > 0.15).all()
    assert (shares.mean(axis=0) > 0.004).all()


def test_every_label_has_synonyms_and_no_word_means_two_things() -> None:
    assert set(SYNONYMS) == set(SCENE_LABELS)
    words = [*SCENE_LABELS, *(word for words in SYNONYMS.values() for word in words)]
    assert all(SYNONYMS.values())
    assert len(words) == len(set(words))


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="`seed`"):
        render_scene(-1)
    with pytest.raises(ValueError, match="`size_hw`"):
        render_scene(0, (15, 400))
    scene = render_scene(0, SMALL_HW)
    with pytest.raises(ValueError, match="`label_map`"):
        Scene(scene.image, scene.label_map[1:])
    with pytest.raises(ValueError, match="`image`"):
        Scene(scene.image[..., 0], scene.label_map)


def _colour_and_height(
    seed: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """600 random pixels of a scene: (600, 4) red, green, blue, height, and (600,) labels."""
    scene = render_scene(seed)
    height, width = scene.label_map.shape
    y, x = rng.integers(height, size=600), rng.integers(width, size=600)
    features = np.concatenate([scene.image[y, x] / 255, y[:, None] / height], axis=1)
    return features.astype(np.float32), scene.label_map[y, x]


def _samples(seeds: range) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    features, labels = zip(*(_colour_and_height(seed, rng) for seed in seeds), strict=True)
    return np.concatenate(features), np.concatenate(labels)


def _iou(labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.float64]:
    """(18,) intersection over union of each label."""
    return np.array(
        [
            ((labels == label) & (predicted == label)).sum()
            / ((labels == label) | (predicted == label)).sum()
            for label in range(18)
        ]
    )


def _smoothed_votes(
    features: NDArray[np.float32], labels: NDArray[np.int64], bins: int, prior: float
) -> NDArray[np.float64]:
    """(bins, bins, bins, bins, 18) share of each label in a cell of colour x height.

    Counts are spread over the neighbouring cells, and weighed by 1 / frequency ** prior: rare
    labels count for more than under plain Bayes, which raises the mean IoU.
    """
    votes = np.zeros((bins,) * 4 + (18,))
    np.add.at(votes, (*_cells(features, bins), labels), 1.0)
    for axis in range(4):
        below = np.roll(votes, 1, axis)
        above = np.roll(votes, -1, axis)
        np.moveaxis(below, axis, 0)[0] = 0
        np.moveaxis(above, axis, 0)[-1] = 0
        votes = votes + 0.5 * (below + above)
    return votes / np.bincount(labels, minlength=18) ** prior


def _cells(features: NDArray[np.float32], bins: int) -> tuple[NDArray[np.int64], ...]:
    return tuple(np.minimum((features * bins).astype(np.int64), bins - 1).T)


def test_colour_and_height_alone_do_not_give_the_label_away() -> None:
    features, labels = _samples(range(500))
    unseen_features, unseen_labels = _samples(
        range(HELD_OUT_SEEDS.start, HELD_OUT_SEEDS.start + 100)
    )
    best = 0.0
    for bins in (8, 12, 16):
        for prior in (0.0, 0.3, 0.6):
            votes = _smoothed_votes(features, labels, bins, prior)
            predicted = votes[_cells(unseen_features, bins)].argmax(axis=-1)
            best = max(best, float(_iou(unseen_labels, predicted).mean()))
    print(f"colour and height alone: {best:.1%} mIoU")
    assert 0.08 < best < 0.30  # the lower bound: the classifier itself must work
