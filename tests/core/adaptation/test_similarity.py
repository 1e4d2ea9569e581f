"""Distinct images are those that the clusters of learning tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from clearclip_core import Example
from clearclip_core.adaptation.similarity import DistinctImages, ImageLayout, cluster
from tests.core.adaptation.test_example import WIDTH, example_of, features_of, masks_of

Cells = npt.NDArray[np.float16]


def scene(seed: int) -> Cells:
    """What a scene looks like, in features that share a direction as those of a model do."""
    made = 3.0 + np.random.default_rng(seed).normal(size=(16, 64))
    return made.astype(np.float16)


def frame(seed: int, number: int, step: float = 0.02) -> Cells:
    """A frame of a drive through the scene, a little off what it looks like."""
    off = np.random.default_rng((seed, number)).normal(size=(16, 64))
    return (scene(seed) + step * number * off).astype(np.float16)


def layouts(cells: Sequence[Cells]) -> list[ImageLayout]:
    return [ImageLayout(f"{number}", each) for number, each in enumerate(cells)]


def chosen(
    images: Sequence[ImageLayout], wanted: int, known: Sequence[ImageLayout] = ()
) -> list[int]:
    """Add images until there are enough."""
    distinct = DistinctImages(known, wanted)
    for image in images:
        if distinct.add(image):
            break
    return distinct.distinct()


def test_a_layout_is_that_of_the_example_of_the_same_picture() -> None:
    example = Example.of(features_of(3), masks_of(3), ["sky", "sofa"], "three")
    of_features = ImageLayout.of(features_of(3), "three")
    of_example = ImageLayout.of_example(example)
    assert of_features.picture == of_example.picture == "three"
    assert of_features.cells.tolist() == example.layout.tolist()


@pytest.mark.parametrize("seed", range(8))
def test_the_choice_is_that_of_the_clusters_of_all_images_together(seed: int) -> None:
    """The first of each cluster without a known image, also of frames alike only by a chain."""
    rng = np.random.default_rng(seed)
    count, spread = rng.integers(2, 40), rng.uniform(0.01, 0.2)
    drives = rng.integers(0, 6, count).tolist()
    images = layouts([frame(drive, n, spread)[:, :WIDTH] for n, drive in enumerate(drives)])
    split = int(rng.integers(0, count))
    made = [replace(example_of(0), picture=each.picture, layout=each.cells) for each in images]
    clusters = cluster(made).tolist()
    before, those = clusters[:split], clusters[split:]
    expected = [i for i, each in enumerate(those) if each not in before + those[:i]]
    assert chosen(images[split:], count, images[:split]) == expected


def test_a_choice_by_few_images_is_taken_back_once_others_show_how_alike_they_are() -> None:
    """With one pair, nothing says how unlike pictures of the project are: 0.999 counts."""
    two = layouts([frame(0, 0), frame(0, 1, 0.25)])
    assert chosen(two, 2) == [0, 1]
    more = layouts([frame(0, 0), frame(0, 1, 0.25), scene(1), scene(2), scene(3)])
    assert chosen(more, 4) == [0, 2, 3, 4]


def test_no_more_images_are_asked_for_than_are_needed() -> None:
    distinct = DistinctImages([], wanted=3)
    drives = [0, 1, 1, 2, 3]
    images = layouts([frame(drive, number) for number, drive in enumerate(drives)])
    assert [distinct.add(each) for each in images[:4]] == [False, False, False, True]


def test_with_many_images_the_clusters_are_not_computed_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed: list[int] = []
    plain = DistinctImages.distinct

    def counted(self: DistinctImages) -> list[int]:
        computed.append(1)
        return plain(self)

    monkeypatch.setattr(DistinctImages, "distinct", counted)
    known = layouts([scene(number) for number in range(320)])
    distinct = DistinctImages(known, wanted=1)
    again = [ImageLayout(f"again {n}", frame(n % 8, 1)) for n in range(40)]
    assert not any(distinct.add(each) for each in again)
    assert len(computed) == 8
