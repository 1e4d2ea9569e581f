"""What paint, missing paint and kept predictions say of a patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from clearclip_core import DenseFeatures, Example, Label, Vocabulary
from clearclip_core.adaptation.acceptance import compare, count_patches
from clearclip_core.adaptation.adaptation import group_names
from clearclip_core.adaptation.batch import Batch
from clearclip_core.adaptation.contradictions import (
    BOX,
    EXCHANGED,
    MOSTLY,
    OUTLIER,
    find_contradictions,
)
from clearclip_core.adaptation.evidence import Evidence, count_images, gather_evidence
from clearclip_core.adaptation.similarity import cluster
from tests.core.segmentation.test_sliding_windows import plan_of

SIDE = 16  # of a patch, px
GRID = 8  # patches a side
PLAN = plan_of((SIDE * GRID,) * 2, (SIDE * GRID,) * 2, window_px=SIDE * GRID)
LABELS = ("sky", "tree", "road")
WORDS = Vocabulary(tuple(Label(name) for name in LABELS), ("wall",))
NAMES = group_names(WORDS)
#: The word of each group is an axis of the features.
AXES = torch.eye(len(NAMES))
#: Quarters of every picture: what the features look like there, to a word that is sure of it.
SHOWN = ("sky", "tree", "road", "")


def embed(prompts: Sequence[str]) -> torch.Tensor:
    return AXES[[[*LABELS, "wall"].index(prompt) for prompt in prompts]]


def quarter(index: int) -> np.ndarray:
    """(8, 8) bool: a quarter of the picture's patches, in reading order, with a notch."""
    rows, columns = divmod(index, 2)
    made = np.zeros((GRID, GRID), bool)
    made[4 * rows : 4 * rows + 4, 4 * columns : 4 * columns + 4] = True
    return made


def pixels(patches: np.ndarray) -> np.ndarray:
    return np.kron(patches, np.ones((SIDE, SIDE), bool))


def features(seed: int, shown: Sequence[str] = SHOWN) -> DenseFeatures:
    """Features that lie near the words of what is shown, and differ from picture to picture."""
    made = torch.zeros(1, GRID, GRID, len(NAMES))
    for index, name in enumerate(shown):
        made[0][torch.from_numpy(quarter(index))] = AXES[NAMES.index(name)]
    noise = torch.randn(made.shape, generator=torch.manual_seed(seed))
    return DenseFeatures(made + 0.02 * noise, PLAN)


def notched(index: int) -> np.ndarray:
    """A quarter without a corner patch, in px: no box."""
    patches = quarter(index)
    rows, columns = divmod(index, 2)
    patches[4 * rows, 4 * columns] = False
    return pixels(patches)


def example(
    seed: int,
    masks: Mapping[str, np.ndarray],
    annotator: str = "a",
    **more: Mapping[str, np.ndarray],
) -> Example:
    return Example.of(features(seed), masks, LABELS, f"{seed}", annotator=annotator, **more)


def batches(examples: Sequence[Example], vocabulary: Vocabulary = WORDS) -> list[Batch]:
    embeddings = embed(vocabulary.queries).numpy()
    return [Batch.of(each, embeddings, vocabulary, 1000) for each in examples]


def gather(examples: Sequence[Example], trusted: Sequence[str] = ()) -> list[Evidence]:
    made = batches(examples)
    aside = find_contradictions(made, NAMES, trusted)
    return gather_evidence(made, np.arange(len(made)), NAMES, aside)


def target_of(evidence: Evidence, index: int) -> np.ndarray:
    """The (G,) mean target of a quarter."""
    target: np.ndarray = evidence.target.reshape(GRID, GRID, -1)[quarter(index)].mean(axis=0)
    return target


#: A corner patch: without it, what touches two edges is no box.
CORNER = np.eye(GRID, dtype=bool) & (np.arange(GRID) == 0)

ALL = {name: notched(index) for index, name in enumerate(LABELS)}


def test_paint_is_what_a_patch_shows_whatever_the_words_say() -> None:
    """What is the road's quarter is painted as a tree, on all pictures but with no word for it."""
    (evidence,) = gather([example(0, {"tree": notched(3)})])
    painted = pixels(quarter(3)) & notched(3)
    known = PLAN.coverage(painted).ravel() > 0.5
    assert evidence.known.tolist() == known.tolist()
    assert evidence.target[known] == pytest.approx(
        np.eye(4)[NAMES.index("tree")][None].repeat(known.sum(), axis=0)
    )


def test_where_nobody_painted_the_words_keep_their_answer() -> None:
    """Only the sky is painted: nothing says that trees are none."""
    first, _ = gather([example(seed, {"sky": notched(0)}) for seed in range(2)])
    assert not first.known.reshape(GRID, GRID)[quarter(1)].any()
    assert target_of(first, 1) == pytest.approx(np.eye(4)[NAMES.index("tree")], abs=0.01)


def test_what_is_painted_wherever_it_is_seen_is_hardly_where_it_is_not_painted() -> None:
    """The sky is painted on every picture; on one its word sees it in a bare corner too."""
    shown = ("sky", "tree", "road", "sky")
    complete = [example(seed, ALL) for seed in range(9)]
    other = Example.of(features(9, shown), ALL, LABELS, "9", annotator="a")
    evidence = gather([*complete, other])[-1]
    bare = target_of(evidence, 3)
    # Half of what the word sees of the sky is bare here: this picture was not painted to the full.
    assert bare[NAMES.index("sky")] > 0.9
    corner = quarter(3)
    corner[:, 5:] = corner[5:] = False  # a single patch, far from half
    small = features(9)
    mixed = 0.5 * AXES[NAMES.index("sky")] + 0.48 * AXES[NAMES.index("")]
    small.patches[0][torch.from_numpy(corner)] = mixed
    tiny = Example.of(small, ALL, LABELS, "9", annotator="a")
    evidence = gather([*complete, tiny])[-1]
    words = evidence.batch.words.reshape(GRID, GRID, -1)[corner][0]
    assert words[NAMES.index("sky")] > 0.6
    # One in 16 patches of each quarter is bare on ten pictures, and this one. Each label's share is
    # drawn to that of all, 31 of 481 by the rule of succession, as if by ten more patches of it.
    more = 10 * 32 / 483
    bare = {"sky": (11 + more) / 171, "tree": (10 + more) / 170, "road": (10 + more) / 170, "": 1}
    expected = words * [bare[name] for name in NAMES]
    found = evidence.target.reshape(GRID, GRID, -1)[corner][0]
    assert found == pytest.approx(expected / expected.sum(), rel=1e-4)
    assert found[NAMES.index("sky")] < 0.2


def test_bare_borders_are_not_taken_for_a_label_that_the_words_hardly_see() -> None:
    """The annotator leaves borders bare: an eighth of the sky, and half of the small road."""
    border = quarter(0)
    border[:, 2:] = border[1:] = False  # the notch, and a patch beside it
    seen = torch.from_numpy(border)
    painted = ALL | {
        "sky": notched(0) & ~pixels(border),
        "road": notched(2) & ~pixels(np.roll(quarter(2), 2, axis=1)),
    }
    pictures = []
    for seed in range(9):
        shown = features(seed)
        shown.patches[0][seen] = 0.54 * AXES[NAMES.index("sky")] + 0.46 * AXES[NAMES.index("road")]
        pictures.append(Example.of(shown, painted, LABELS, f"{seed}", annotator="a"))
    evidence = gather(pictures)[0]
    words, target = (
        each.reshape(GRID, GRID, -1)[border] for each in (evidence.batch.words, evidence.target)
    )
    assert (words[:, NAMES.index("road")] > 0.01).all()
    assert (words[:, NAMES.index("road")] < 0.03).all()
    assert (target[:, NAMES.index("sky")] > 0.8).all()


@pytest.mark.parametrize(
    ("patches", "road"),
    [(0, 28 / 290), (9, 10 * 28 / 290 / 19), (10, 10 * 28 / 300 / 20), (11, 10 * 28 / 301 / 21)],
)
def test_missing_paint_does_not_speak_for_a_label_of_which_few_patches_tell(
    patches: int, road: float
) -> None:
    """On one of nine pictures there is a road, of a few patches, all painted.

    Everywhere the notch of the trees and two patches at the border of the sky are bare.
    """
    border = quarter(0)
    border[:, 2:] = border[1:] = False
    few = np.zeros((GRID, GRID), bool)
    few[np.divmod(np.flatnonzero(quarter(2))[:patches], GRID)] = True
    pictures = []
    for seed in range(9):
        shown = features(seed, ("sky", "tree", "", ""))
        mixed = 0.54 * AXES[NAMES.index("sky")] + 0.5 * AXES[NAMES.index("road")]
        shown.patches[0][torch.from_numpy(border)] = mixed
        painted = {"sky": notched(0) & ~pixels(border), "tree": notched(1)}
        if seed == 0 and patches:
            shown.patches[0][torch.from_numpy(few)] = AXES[NAMES.index("road")]
            painted["road"] = pixels(few)
        pictures.append(Example.of(shown, painted, LABELS, f"{seed}", annotator="a"))
    evidence = gather(pictures)[-1]
    words, target = (
        each.reshape(GRID, GRID, -1)[border] for each in (evidence.batch.words, evidence.target)
    )
    # Of 144 patches of each, 18 of the sky and 9 of trees are bare; of all labels with at least ten
    # patches, 28 of 290 by the rule of succession.
    all_bare = 28 / (290 + (patches if patches >= 10 else 0))
    bare = {
        "sky": (18 + 10 * all_bare) / 154,
        "tree": (9 + 10 * all_bare) / 154,
        "road": road,
        "": 1,
    }
    expected = words * [bare[name] for name in NAMES]
    assert target == pytest.approx(expected / expected.sum(axis=1, keepdims=True), rel=1e-4)
    places = target[:, NAMES.index("road")] / words[:, NAMES.index("road")]
    assert (words[:, NAMES.index("road")] > 0.01).all()
    assert (places < 1).all()


def test_labels_of_another_annotator_rule_nothing_out() -> None:
    painters = [example(seed, ALL, "a") for seed in range(5)]
    other = example(9, {"tree": notched(1)}, "b")
    evidence = gather([*painters, other])[-1]
    assert target_of(evidence, 0)[NAMES.index("sky")] > 0.9


def test_a_removed_prediction_rules_its_label_out_there() -> None:
    taken = {"tree": pixels(quarter(1))}
    (evidence,) = gather([example(0, {"sky": notched(0)}, removed=taken)])
    assert target_of(evidence, 1)[NAMES.index("tree")] == 0
    assert target_of(evidence, 1).sum() == pytest.approx(1)


def test_paint_says_nothing_where_the_words_are_sure_of_a_label_that_nobody_paints() -> None:
    """Trees are painted as sky on all pictures: nothing would show what that costs trees."""
    tree = quarter(1)
    tree[2:] = tree[:, 6:] = False  # four of its patches
    masks = {"sky": pixels(quarter(0) | tree | quarter(3)) & ~pixels(CORNER)}
    pictures = [example(seed, masks) for seed in range(3)]

    def told(evidence: Evidence) -> np.ndarray:
        target: np.ndarray = evidence.target.reshape(GRID, GRID, -1)[tree].mean(axis=0)
        return target

    sky = NAMES.index("sky")
    first, *_ = gather(pictures)
    known = first.known.reshape(GRID, GRID)
    assert not known[tree].any()
    assert told(first) == pytest.approx(np.eye(4)[NAMES.index("tree")], abs=0.01)
    assert first.contested.reshape(GRID, GRID, -1)[tree][:, sky] == pytest.approx(1)
    assert known[quarter(3)].all()  # looks like nothing in particular

    painted, *_ = gather([*pictures, example(9, {"tree": notched(1)})])
    assert told(painted)[sky] == pytest.approx(1)
    removed, *_ = gather([example(8, masks, removed={"tree": pixels(quarter(1))}), *pictures])
    assert told(removed)[sky] == pytest.approx(1)


@pytest.mark.parametrize(("without", "known"), [(8, False), (11, True)])
def test_paint_much_of_which_says_nothing_says_nothing_at_all(without: int, known: bool) -> None:
    """On two pictures trees are painted as sky, and nobody paints trees; on others there are none.

    Of what is painted as sky, 30 of 180 or of 225 patches are trees: a sixth, or less than 15 %.
    """
    trees = {"sky": notched(0) | notched(1)}
    pictures = [example(seed, trees) for seed in range(2)]
    bare = [
        Example.of(features(seed, ("sky", "", "", "")), {"sky": notched(0)}, LABELS, f"{seed}")
        for seed in range(2, 2 + without)
    ]
    evidence = gather([*pictures, *bare])
    assert {bool(each.known.any()) for each in evidence[2:]} == {known}
    assert not any(each.known.reshape(GRID, GRID)[quarter(1)].any() for each in evidence)


def test_paint_that_stands_as_predicted_teaches_no_more_than_agreement() -> None:
    """Of a label that the words do not see there, it says nothing at all."""
    masks = {"sky": notched(0), "tree": notched(3)}
    (evidence,) = gather([example(0, masks, kept=masks)])
    assert not evidence.known.any()
    painted = PLAN.coverage(notched(3)).ravel() > 0.5
    assert not evidence.batch.weights[painted].any()
    assert evidence.batch.weights[PLAN.coverage(notched(0)).ravel() > 0.5].all()
    assert np.abs(evidence.target - evidence.batch.words).max() < 1e-6


def test_paint_of_several_labels_on_one_patch_is_not_known() -> None:
    (evidence,) = gather([example(0, {"sky": notched(0), "tree": notched(0)})])
    assert not evidence.known.any()


def test_observations_of_an_image_sum_to_one_and_to_its_unpainted_share() -> None:
    (evidence,) = gather([example(0, ALL)])
    painted = evidence.observations[evidence.known].sum()
    assert painted == pytest.approx(1, abs=1e-5)
    assert evidence.observations.sum() - painted == pytest.approx(
        (~evidence.known).mean(), abs=1e-5
    )


# ---- contradictions -------------------------------------------------------------------------


def reasons(examples: Sequence[Example], trusted: Sequence[str] = ()) -> dict[tuple[int, str], str]:
    digests = [each.digest for each in examples]
    found = find_contradictions(batches(examples), NAMES, trusted)
    return {(digests.index(each.example), each.label): each.reason for each in found}


def test_boxes_teach_nothing() -> None:
    boxed = example(0, {"sky": pixels(quarter(0)), "tree": notched(1)})
    assert reasons([boxed]) == {(0, "sky"): BOX}
    (evidence,) = gather([boxed])
    assert target_of(evidence, 0)[NAMES.index("sky")] > 0.9  # the words' own answer
    assert not evidence.known.reshape(GRID, GRID)[quarter(0)].any()


def test_one_exchange_among_many_pictures_is_set_aside_until_it_is_trusted() -> None:
    right = [example(seed, ALL) for seed in range(4)]
    wrong = example(9, {"sky": notched(1), "tree": notched(0), "road": notched(2)})
    examples = [*right, wrong]
    assert reasons(examples) == {(4, "sky"): OUTLIER, (4, "tree"): OUTLIER}
    assert reasons(examples, trusted=[wrong.digest]) == {}
    held_out = [each.predicted for each in batches(examples)]
    made = find_contradictions(batches(examples), NAMES, (), held_out)
    assert {each.label for each in made} == {"sky", "tree"}
    others = gather(examples, [wrong.digest])  # as if the others' paint agreed
    agreeing = [*held_out[:4], others[4].truth]
    assert find_contradictions(batches(examples), NAMES, (), agreeing) == []


def test_a_picture_whose_paint_mostly_contradicts_is_set_aside_as_a_whole() -> None:
    right = [example(seed, ALL) for seed in range(4)]
    shifted = {"sky": notched(1), "tree": notched(2), "road": notched(0)}
    (*_, last) = examples = [*right, example(9, shifted), example(10, shifted, "b")]
    found = reasons(examples)
    assert {name for index, name in found if index == 4} == set(LABELS)
    assert {name for index, name in found if index == 5} == set(LABELS)
    assert reasons(examples, trusted=[last.digest]).keys() == {(4, name) for name in LABELS}


def test_all_of_an_annotator_who_mostly_contradicts_is_set_aside() -> None:
    right = [example(seed, ALL) for seed in range(6)]
    careless = [
        example(10, {"sky": notched(1), "tree": notched(0)}, "b"),
        example(11, {"sky": notched(1), "tree": notched(0), "road": notched(2)}, "b"),
        example(12, {"road": notched(2)}, "b"),
    ]
    found = reasons([*right, *careless])
    assert found[8, "road"] == MOSTLY
    assert not any(index < 6 for index, _ in found)


def test_labels_that_are_exchanged_on_all_pictures_are_set_aside() -> None:
    swapped = {"sky": notched(1), "tree": notched(0), "road": notched(2)}
    found = reasons([example(seed, swapped) for seed in range(4)])
    assert {name for _, name in found if _ == 0} >= {"sky", "tree"}
    assert found[0, "sky"] == EXCHANGED
    assert (0, "road") not in found or found[0, "road"] == MOSTLY


def test_a_label_whose_word_means_nothing_is_no_contradiction() -> None:
    """All roads are called trees, and nothing looks like a tree to the word."""
    shown = ("sky", "", "road", "road")
    masks = {"sky": notched(0), "tree": notched(2) | notched(3)}
    examples = [Example.of(features(seed, shown), masks, LABELS, f"{seed}") for seed in range(4)]
    assert reasons(examples) == {}


def test_labels_that_are_exchanged_on_half_of_the_pictures_are_set_aside_there() -> None:
    swapped = {"sky": notched(1), "tree": notched(0), "road": notched(2)}
    examples = [example(seed, (ALL, swapped)[seed % 2]) for seed in range(6)]
    expected = {(index, name): OUTLIER for index in (1, 3, 5) for name in ("sky", "tree")}
    assert reasons(examples) == expected


def test_a_label_that_is_right_once_and_then_covers_a_reliable_labels_things_is_set_aside() -> None:
    sky, taken = {"sky": notched(0)}, {"road": notched(0)}
    right = {"sky": notched(0), "road": notched(2)}
    examples = [example(seed, masks) for seed, masks in enumerate([right, sky, *[taken] * 4])]
    assert reasons(examples) == {(index, "road"): OUTLIER for index in (2, 3, 4, 5)}


def test_a_label_that_also_covers_what_nobody_paints_with_its_own_label_is_set_aside() -> None:
    """Trees are called trees, and so are roads: nothing says what that costs roads."""
    right = {"sky": notched(0), "tree": notched(1)}
    wide = {"sky": notched(0), "tree": notched(1) | notched(2)}
    examples = [example(seed, (right, wide)[seed > 1]) for seed in range(5)]
    assert reasons(examples) == {(index, "tree"): OUTLIER for index in (2, 3, 4)}
    some = [*examples, *(example(seed, ALL) for seed in range(5, 9))]
    assert reasons(some) == {}  # roads are painted too, so held-out pictures show what it costs


@pytest.mark.parametrize("painted", [True, False])
def test_labels_that_are_painted_on_a_picture_are_not_replaced_by_what_covers_a_little_of_each(
    painted: bool,
) -> None:
    """Words see a tree and a road in the sky, a fifth of it each, and nearly no others of them.

    Who paints trees and roads where they are has not forgotten them.
    """
    top, columns = pixels(quarter(0) | quarter(1)), {"tree": [3, 2, 0, 1], "road": [4, 5, 7, 6]}
    top[: 2 * SIDE, : 2 * SIDE] = False  # no box
    examples = []
    for seed in range(4):
        shown, own = features(seed, ("sky", "sky", "", "")), {}
        for name, (inner, next_, outer, middle) in columns.items():
            seen, mask = np.zeros((2, GRID, GRID), bool)
            seen[:4, inner] = seen[:1, next_] = True  # of the sky
            mask[5:, outer] = mask[7, middle] = mask[7, next_] = mask[6, middle] = True
            seen[5:7, outer] = True  # two of its own six patches
            shown.patches[0][torch.from_numpy(seen)] = AXES[NAMES.index(name)]
            own[name] = pixels(mask)
        examples.append(
            Example.of(shown, {"sky": top} | (own if painted else {}), LABELS, f"{seed}")
        )
    expected = {} if painted else {(index, "sky"): OUTLIER for index in range(4)}
    assert reasons(examples) == expected


def test_pictures_of_one_error_do_not_bear_each_other_out() -> None:
    """On day two roads are called trees; from three such pictures that is learned for the last."""
    day_one = [example(seed, ALL) for seed in range(4)]
    day_two = [example(seed, {"sky": notched(0), "tree": notched(2)}) for seed in range(4, 8)]
    made = batches([*day_one, *day_two])
    words = [each.predicted for each in made]
    borne_out = np.where(words[7] == NAMES.index("road"), NAMES.index("tree"), words[7])
    found = find_contradictions(made, NAMES, (), [*words[:7], borne_out])
    aside = {each.example for each in found if each.label == "tree"}
    assert aside == {each.digest for each in day_two}
    # where most of them are borne out, they are what the words get wrong
    half = [*words[:6], *(np.where(each == NAMES.index("road"), 1, each) for each in words[6:])]
    assert NAMES[1] == "tree"
    found = find_contradictions(made, NAMES, (), half)
    aside = {each.example for each in found if each.label == "tree"}
    assert aside == {each.digest for each in day_two[:2]}


def test_two_labels_that_are_exchanged_on_a_picture_are_set_aside_both() -> None:
    """The others' paint would bear one of them out."""
    swapped = {"sky": notched(1), "tree": notched(0), "road": notched(2)}
    examples = [*(example(seed, ALL) for seed in range(4)), example(9, swapped)]
    made = batches(examples)
    words = [each.predicted for each in made]
    sky = NAMES.index("sky")
    borne_out = np.where(words[4] == sky, NAMES.index("tree"), words[4])
    found = find_contradictions(made, NAMES, (), [*words[:4], borne_out])
    assert {(each.example, each.label) for each in found} == {
        (examples[4].digest, "sky"),
        (examples[4].digest, "tree"),
    }


def test_a_label_whose_word_wins_elsewhere_is_not_exchanged_where_it_covers_no_labels_things() -> (
    None
):
    """What looks like a tree to the word is a road, and what is called a tree looks like none."""
    shown = ("sky", "tree", "", "road")
    masks = {"sky": notched(0), "tree": notched(2), "road": notched(1) | notched(3)}
    examples = [Example.of(features(seed, shown), masks, LABELS, f"{seed}") for seed in range(4)]
    assert reasons(examples) == {}


@pytest.mark.parametrize(("pictures", "expected"), [(14, {EXCHANGED}), (15, set())])
def test_a_label_whose_word_is_often_wrong_is_not_exchanged_where_enough_pictures_say_so(
    pictures: int, expected: set[str]
) -> None:
    """What looks like a tree is sky, what looks like a road is a tree, and roads look like nothing.

    The sky means what its word says, so nobody calls trees so.
    """
    shown = ("sky", "tree", "road", "")
    masks = {"sky": notched(0) | notched(1), "tree": notched(2), "road": notched(3)}
    examples = [
        Example.of(features(seed, shown), masks, LABELS, f"{seed}") for seed in range(pictures)
    ]
    found = reasons(examples)
    assert {reason for (_, name), reason in found.items() if name == "tree"} == expected


def test_labels_that_are_exchanged_on_many_pictures_are_set_aside() -> None:
    swapped = {"sky": notched(1), "tree": notched(0), "road": notched(2)}
    found = reasons([example(seed, swapped) for seed in range(20)])
    assert {name for (_, name), reason in found.items() if reason == EXCHANGED} == {"sky", "tree"}


# ---- similar images -------------------------------------------------------------------------


def test_frames_of_a_video_count_as_one_image_and_other_pictures_do_not() -> None:
    turned = ("road", "", "sky", "tree")
    frames = [Example.of(features(seed), ALL, LABELS, f"{seed}") for seed in range(3)]
    others = [
        Example.of(features(9, turned), ALL, LABELS, "9"),
        Example.of(features(9, ("tree", "sky", "sky", "road")), ALL, LABELS, "8"),
    ]
    found = cluster([*frames, *others])
    assert len({*found[:3]}) == 1
    assert len({*found}) == 3
    assert cluster([]).tolist() == []


def test_examples_of_one_image_are_one_without_a_layout_too() -> None:
    old = [replace(example(seed, ALL), layout=None, picture=f"{seed // 2}") for seed in range(4)]
    assert cluster(old).tolist() == [0, 0, 1, 1]


def test_images_of_a_label_are_counted_once_however_often_it_was_painted() -> None:
    """Three examples of two images: the sky on all, the tree on the last."""
    painted = [example(seed, {"sky": notched(0)}) for seed in (0, 1)]
    painted.append(example(2, {"sky": notched(0), "tree": notched(1)}))
    batches = [Batch.of(each, embed(WORDS.queries).numpy(), WORDS, 1000) for each in painted]
    evidence = gather_evidence(batches, np.array([0, 0, 1]), NAMES, [])
    counts = count_images(evidence, len(NAMES))
    assert dict(zip(NAMES, counts.tolist(), strict=True)) == {"sky": 2, "tree": 1, "road": 0, "": 0}


# ---- the gate -------------------------------------------------------------------------------


def test_counts_are_of_the_target_and_weigh_what_the_words_are_sure_of() -> None:
    (evidence,) = gather([example(0, {"sky": notched(0)})])
    right, truth, predicted = count_patches(evidence, evidence.batch.text)
    words = evidence.batch.words.max(axis=1)
    certainty = np.where(evidence.known, 1, words)
    assert truth.sum() == pytest.approx(certainty.sum(), rel=1e-5)
    assert right == pytest.approx(truth)
    assert predicted == pytest.approx(truth)
    turned = np.roll(evidence.batch.text, 1, axis=1)
    assert count_patches(evidence, turned)[0].sum() == pytest.approx(0, abs=1e-6)


def test_the_words_count_as_often_as_paint_finds_them_right() -> None:
    """They name a road on the trees too: right on 15 patches of 30, beside 10 that it starts at."""
    shown = ("sky", "road", "road", "")
    painted = {"tree": notched(1), "road": notched(2)}
    made = Example.of(features(0, shown), painted, LABELS, "0")
    (evidence,) = gather([made], [made.digest])
    precision = dict(zip(NAMES, evidence.word_precision.tolist(), strict=True))
    assert precision["road"] == pytest.approx(25 / 40, abs=1e-3)
    assert precision["sky"] == 1, "nobody painted a sky, so nothing is known of its word"
    bare = pixels(quarter(1)) & ~notched(1)
    patch = int(np.flatnonzero(bare[::SIDE, ::SIDE])[0])
    assert evidence.certainty[patch] == pytest.approx(25 / 40, abs=1e-3)
    assert evidence.certainty[0] == pytest.approx(1, abs=1e-3)


def test_predictions_that_stand_are_right_words_and_those_that_were_removed_are_not() -> None:
    """The words see a road in two quarters, and one of them is a tree.

    Two patches of road are drawn, the rest of it stands as predicted, and the tree is corrected.
    """
    two = np.zeros((GRID, GRID), bool)
    two[4, 1:3] = True
    kept, tree, drawn = notched(2) & ~pixels(two), notched(1), pixels(two)
    shown = features(0, ("sky", "road", "road", ""))

    def road(masks: Mapping[str, np.ndarray], **more: Mapping[str, np.ndarray]) -> float:
        made = Example.of(shown, masks, LABELS, "0", **more)
        (evidence,) = gather([made], [made.digest])
        return float(evidence.word_precision[NAMES.index("road")])

    corrected = {"tree": tree, "road": kept | drawn}
    # ten that it starts at, 13 that stand and two that are drawn, of these and 15 of the tree
    assert road(corrected, kept={"road": kept}) == pytest.approx(25 / 40, abs=1e-3)
    assert road({"tree": tree, "road": drawn}) == pytest.approx(12 / 27, abs=1e-3)
    removed = {"road": pixels(quarter(1))}
    assert road({"road": drawn}, removed=removed) == pytest.approx(12 / 28, abs=1e-3)
    assert road({"sky": notched(0)}, removed=removed) == pytest.approx(10 / 26, abs=1e-3)


def test_where_paint_is_set_aside_it_and_the_words_are_true_by_half() -> None:
    right = [example(seed, ALL) for seed in range(4)]
    wrong = example(9, {"sky": notched(1), "tree": notched(0), "road": notched(2)})
    *_, evidence = gather([*right, wrong])
    sky, tree = (
        count_patches(evidence, np.eye(4, dtype=np.float32)[np.full(64, NAMES.index(name))])[0]
        for name in ("sky", "tree")
    )
    # 15 patches of each quarter are contested; the notch of each is bare, and the words' alone
    assert sky[NAMES.index("sky")] == pytest.approx(15 / 2 + 15 / 2 + 1, abs=0.02)
    assert tree[NAMES.index("tree")] == pytest.approx(15 / 2 + 15 / 2 + 1, abs=0.02)
    road = np.eye(4, dtype=np.float32)[np.full(64, NAMES.index("road"))]
    assert count_patches(evidence, road)[0].sum() == pytest.approx(16, abs=0.02)


def test_a_thing_that_is_thinner_than_a_patch_counts_as_far_as_it_covers_it() -> None:
    """A quarter of one patch is a tree, the rest of it and all others are sky."""
    tree = np.zeros((SIDE * GRID,) * 2, bool)
    tree[:8, :8] = True
    painted = example(0, {"sky": ~tree, "tree": tree})
    others = [example(9, {"road": notched(2)})]  # or nothing would be known of roads
    evidence, _ = gather([painted, *others], [painted.digest])  # the words see other things there
    right, truth, predicted = count_patches(evidence, np.eye(4)[[1] + [0] * 63].astype(np.float32))
    assert right == pytest.approx([63, 0.25, 0, 0])
    assert truth == pytest.approx([63.75, 0.25, 0, 0])
    assert predicted == pytest.approx([63, 1, 0, 0])


def test_a_comparison_has_bounds_that_fit_the_number_of_images() -> None:
    """One label, of 10 patches an image; 4 more of them are right on every second image."""

    def counts(n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        before = [np.array([[5.0], [10.0], [10.0]]) for _ in range(n)]
        after = [np.array([[5.0 + 4 * (i % 2)], [10.0], [10.0]]) for i in range(n)]
        return before, after

    few, many = (compare(*counts(n), np.arange(n)) for n in (4, 100))
    assert few.before.tolist() == [pytest.approx(1 / 3)]
    assert few.after.tolist() == [pytest.approx(7 / 13)] == many.after.tolist()
    assert few.gain == pytest.approx(7 / 13 - 1 / 3)
    assert few.lows[0] < many.lows[0] < few.gain < many.highs[0] < few.highs[0]
    assert few.gain_bound == pytest.approx(few.lows[0])
    same = compare(counts(4)[0], counts(4)[0], np.arange(4))
    assert (same.gain, same.gain_bound, same.lows.tolist()) == (0, 0, [0])


def test_images_that_are_alike_are_drawn_together() -> None:
    before = [np.array([[5.0], [10.0], [10.0]])] * 8
    after = [np.array([[9.0], [10.0], [10.0]])] * 4 + before[:4]
    alone = compare(before, after, np.arange(8))
    pairs = compare(before, after, np.arange(8) // 4)
    assert pairs.lows[0] < alone.lows[0]
