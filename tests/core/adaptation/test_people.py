"""Annotators whose own pictures speak against their work."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from clearclip_core import Example, HeldOutAdaptations, adapt
from tests.core.adaptation.test_fitting import EXAMPLES, KNOWN, PLACES, WORDS, drawn_image, embed

Mask = npt.NDArray[np.bool_]

#: What a tool has done to masks -> what the reason says.
MOVES: dict[str, Callable[[Mask], Mask]] = {
    "mirrored": lambda mask: mask[:, ::-1],
    "upside down": lambda mask: mask[::-1],
    "turned by 180°": lambda mask: mask[::-1, ::-1],
}


def moved(seed: int, move: Callable[[Mask], Mask], annotator: str = "ann") -> Example:
    features, masks = drawn_image(seed)
    masks = {name: move(mask) for name, mask in masks.items()}
    return Example.of(features, masks, KNOWN, f"{seed}", annotator=annotator)


@pytest.mark.parametrize("what", ["mirrored", "turned by 180°"])
def test_masks_that_a_tool_has_moved_are_named(what: str) -> None:
    fit = adapt([moved(seed, MOVES[what]) for seed in range(6)], embed, WORDS)
    (found,) = fit.people
    assert (found.annotator, found.is_left_out) == ("ann", True)
    assert what in found.reason


def test_nothing_is_learned_of_moved_masks() -> None:
    wrong = [moved(seed, MOVES["mirrored"]) for seed in range(20, 26)]
    with_them, without = adapt([*EXAMPLES, *wrong], embed, WORDS), adapt(EXAMPLES, embed, WORDS)
    assert with_them.adaptation is not None
    assert without.adaptation is not None
    assert with_them.adaptation.digest == without.adaptation.digest


def test_moved_masks_are_compared_with_what_the_others_teach() -> None:
    wrong = [moved(seed, MOVES["mirrored"]) for seed in range(20, 26)]
    held_out = HeldOutAdaptations.fit([*EXAMPLES, *wrong], embed, WORDS)
    assert held_out.of("20") is held_out.others


def test_masks_as_they_are_speak_against_nobody() -> None:
    own = [moved(seed, lambda mask: mask) for seed in range(12)]
    assert adapt(own, embed, WORDS).people == ()


def test_two_pictures_are_too_few_to_judge_somebody() -> None:
    wrong = [moved(seed, MOVES["mirrored"]) for seed in range(20, 22)]
    assert adapt([*EXAMPLES, *wrong], embed, WORDS).people == ()


def test_whoever_is_right_on_most_pictures_is_learned_from() -> None:
    wrong = [moved(seed, MOVES["mirrored"]) for seed in range(20, 23)]
    right = [moved(seed, lambda mask: mask) for seed in range(30, 34)]
    assert adapt([*wrong, *right], embed, WORDS).people == ()


@pytest.mark.parametrize(("column", "rows"), [(3, slice(0, 1)), (5, slice(0, 1))])
def test_elsewhere_has_the_labels_moved_back(column: int, rows: slice) -> None:
    """Of masks that are too far left, what stands at the right comes from the left."""
    features, _ = drawn_image(0)
    mask = np.zeros((80, 64), np.bool_)
    mask[:8, :8] = True  # two of 20 x 16 sampled pixels a side: the length of a shift
    example = Example.of(features, {"sky": mask}, KNOWN)
    shown = (example.elsewhere[:, column] >= 0).reshape(20, 16)
    expected = np.zeros((20, 16), np.bool_)
    if column == 3:
        expected[:2, 2:4] = True
    else:
        expected[2:4, :2] = True
    assert np.array_equal(shown, expected)


def exchanged(seed: int, annotator: str) -> Example:
    features, masks = drawn_image(seed)
    swapped = {"sofa": masks["sky"], "sky": masks["sofa"]}
    return Example.of(features, swapped, KNOWN, f"{seed}", annotator=annotator)


def right(annotator: str, *seeds: int) -> list[Example]:
    return [moved(seed, lambda mask: mask, annotator) for seed in seeds]


def test_one_of_three_who_exchanges_two_labels_is_named_with_them() -> None:
    wrong = [exchanged(seed, "cy") for seed in range(40, 44)]
    fit = adapt([*right("ann", *range(6)), *right("bo", *range(20, 26)), *wrong], embed, WORDS)
    (found,) = fit.people
    assert (found.annotator, found.labels) == ("cy", ("sofa", "sky"))
    assert not found.is_left_out
    assert set(fit.refused) == {"sofa", "sky"}, "they keep their words"


def one_label(seed: int, label: str, drawn_as: str) -> Example:
    """A picture of the third person on which only one label is drawn."""
    features, masks = drawn_image(seed)
    return Example.of(features, {drawn_as: masks[label]}, KNOWN, f"{seed}", annotator="cy")


OTHERS = [*right("ann", *range(6)), *right("bo", *range(20, 26))]


def test_an_exchange_is_found_where_no_picture_shows_both_labels() -> None:
    wrong = [one_label(seed, "sofa", "sky") for seed in (40, 41)]
    wrong += [one_label(seed, "sky", "sofa") for seed in (42, 43)]
    (found,) = adapt([*OTHERS, *wrong], embed, WORDS).people
    assert (found.annotator, found.labels) == ("cy", ("sofa", "sky"))


def test_whoever_takes_one_label_for_the_other_exchanges_nothing() -> None:
    wrong = [one_label(seed, "sofa", "sky") for seed in range(40, 44)]
    right_one = one_label(44, "sofa", "sofa")
    (found,) = adapt([*OTHERS, *wrong, right_one], embed, WORDS).people
    assert (found.annotator, found.labels) == ("cy", ("sky", "sofa"))
    assert "On 4 of 4 pictures “sky” seems to be “sofa”" in found.reason


def test_labels_that_look_alike_to_everybody_are_nobodys_mistake() -> None:
    """Words and features have the sofa of all three for the sky."""
    alike = PLACES | {"sofa": PLACES["sky"]}
    examples = []
    for number, annotator in enumerate(["ann", "bo", "cy"]):
        for seed in range(20 * number, 20 * number + 4):
            features, masks = drawn_image(seed, alike)
            examples.append(Example.of(features, masks, KNOWN, f"{seed}", annotator=annotator))
    assert adapt(examples, embed, WORDS).people == ()


def test_of_two_who_disagree_nobody_is_named() -> None:
    """Nobody knows which one is right."""
    wrong = [exchanged(seed, "cy") for seed in range(40, 44)]
    assert adapt([*right("ann", *range(6)), *wrong], embed, WORDS).people == ()


def test_what_most_people_call_things_is_right() -> None:
    """A project may use labels otherwise than the words do."""
    most = [exchanged(seed, f"person {seed % 4}") for seed in range(16)]
    fit = adapt([*most, *right("cy", *range(40, 44))], embed, WORDS)
    assert [each.annotator for each in fit.people] == ["cy"]


def test_three_people_who_agree_are_not_named() -> None:
    examples = [*right("ann", *range(4)), *right("bo", *range(20, 24)), *right("cy", 40, 41, 42)]
    fit = adapt(examples, embed, WORDS)
    assert fit.people == ()
    assert fit.refused == {}


def of_right_words(annotator: str, *seeds: int, sky_as: str = "sky") -> list[Example]:
    """Pictures whose words have both labels right, with the sky drawn as it is or not."""
    made = []
    for seed in seeds:
        features, masks = drawn_image(seed, PLACES | {"sky": embed(["sky"])[0]})
        sky = masks.pop("sky")
        masks[sky_as] = sky | masks[sky_as] if sky_as in masks else sky
        made.append(Example.of(features, masks, KNOWN, f"{seed}", annotator=annotator))
    return made


def test_a_label_that_loses_on_the_pictures_of_most_people_keeps_its_words() -> None:
    """Whoever draws the sky as a sofa exchanges nothing, and spoils both others' sofas."""
    ann, bo = of_right_words("ann", *range(4)), of_right_words("bo", *range(20, 24))
    cy = of_right_words("cy", *range(40, 44), sky_as="sofa")
    fit = adapt([*ann, *bo, *cy], embed, WORDS)
    assert fit.people == ()
    assert "most annotators" in fit.refused["sofa"]
