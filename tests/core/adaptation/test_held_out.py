"""Adaptations that have not learned from the image that they score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clearclip_core import Adaptation, Example
from clearclip_core.adaptation.held_out import fit_held_out
from tests.core.adaptation.test_fitting import WORDS, drawn_image, embed, examples_of


def named(count: int) -> list[Example]:
    return [replace(each, picture=f"p{index}") for index, each in enumerate(examples_of(count))]


def painted(seed: int, turned: bool) -> Example:
    """An example of a picture, on request with the two labels exchanged."""
    features, masks = drawn_image(seed)
    if turned:
        masks = {"sofa": masks["sky"], "sky": masks["sofa"]}
    return Example.of(features, masks, ["sofa", "sky", "dog"], f"p{seed}")


def difference(one: Adaptation | None, other: Adaptation | None) -> float:
    assert one is not None
    assert other is not None
    assert one.names == other.names
    return float(np.abs(one.directions - other.directions).max())


def test_what_scores_an_image_does_not_depend_on_how_it_was_painted() -> None:
    trusted = [painted(3, turned=True).digest]
    right = fit_held_out([painted(s, False) for s in range(10)], embed, WORDS, trusted)
    wrong = fit_held_out([painted(s, s == 3) for s in range(10)], embed, WORDS, trusted)
    assert difference(right.of("p3"), wrong.of("p3")) < 1e-4
    folds = [difference(right.of(f"p{s}"), wrong.of(f"p{s}")) for s in range(10)]
    assert max(folds) > 1e-2, "the others have learned from it"
    assert difference(right.others, wrong.others) > 1e-2


def test_annotations_of_one_image_are_held_out_together() -> None:
    examples = named(6)
    twice = replace(examples[0], annotator="b")
    made = fit_held_out([*examples, twice], embed, WORDS)
    alone = fit_held_out(examples[1:], embed, WORDS)
    assert set(made.by_picture) == {f"p{index}" for index in range(6)}
    assert made.of("new") is made.others
    assert made.of("p0") is not made.others
    assert alone.of("p0") is alone.others, "it gave no example"


def test_the_images_of_a_fold_share_one_adaptation() -> None:
    """Thousands of examples do not take thousands of adaptations."""
    made = fit_held_out(named(12), embed, WORDS)
    assert len(made.by_picture) == 12
    assert len({id(each) for each in made.by_picture.values()}) == 5
    assert len({each.digest for each in made.by_picture.values()}) == 5


@pytest.mark.parametrize("count", [0, 1])
def test_of_one_image_alone_nothing_is_learned(count: int) -> None:
    made = fit_held_out(named(count), embed, WORDS)
    assert made.of("p0") is None
    assert made.others is None
