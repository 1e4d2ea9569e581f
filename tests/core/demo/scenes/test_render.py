"""The scenes: the same for the same seed, labelled everywhere, and not to be solved by colour."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.demo.scenes.render import SCENE_LABELS, SYNONYMS, render_scene

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
