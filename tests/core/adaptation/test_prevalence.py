"""How much more frequent a label may be than in the corrected images, by areas written out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clearclip_core.adaptation.prevalence import weigh_labels


def image(cluster: int, *areas: float, known: bool = True) -> Any:
    """An image of one patch that shows labels with these areas."""
    row = np.array([areas])
    return SimpleNamespace(cluster=cluster, observations=row, known=np.array([known]), target=row)


def test_a_label_that_few_images_show_weighs_more_than_one_that_all_show_alike() -> None:
    images = [image(n, 0.8, 0.2 if n < 2 else 0.0, 0.2 if n >= 2 else 0.0) for n in range(10)]
    always, rare, often = weigh_labels(images)
    assert always < often < rare
    # of ten images, two of which show it, nine draws in ten have at most four that do
    assert rare / always == pytest.approx(2)
    means = np.array([0.8, 0.04, 0.16])
    assert means @ [always, rare, often] == pytest.approx(1)


def test_labels_that_all_images_show_alike_weigh_as_before() -> None:
    assert weigh_labels([image(n, 0.7, 0.3) for n in range(5)]) == pytest.approx([1, 1])


def test_near_duplicates_count_as_one_image() -> None:
    """Ten frames of one scene say no more of a label's frequency than one."""
    once = weigh_labels([image(0, 0.2, 0.8), image(3, 1.0, 0.0)])
    frames = [image(0, 0.02, 0.08) for _ in range(10)]
    assert weigh_labels([*frames, image(3, 1.0, 0.0)]) == pytest.approx(once)


def test_patches_that_nobody_painted_say_nothing_of_frequency() -> None:
    painted = [image(n, 0.5, 0.5) for n in range(4)]
    bare = image(0, 0.0, 1.0, known=False)
    assert weigh_labels([*painted, bare]) == pytest.approx([1, 1])
    assert weigh_labels([bare]).tolist() == [1, 1]
