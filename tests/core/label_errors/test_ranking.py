"""What is unusual for its label comes first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clearclip_core.label_errors.disagreement import BESIDE_LABELS, Disagreement, Matrix
from clearclip_core.label_errors.ranking import rank

BOX = slice(0, 1), slice(0, 1)


#: Labels of the parts that are described; the numbers after their scores are those of `describe`.
LABELS = 3


def describe(seen: int, rng: np.random.Generator, sure: float = 5.0) -> Matrix:
    """Describe a part in which the scores see a label, as much as they are sure of it."""
    made = rng.normal(size=LABELS + BESIDE_LABELS)
    made[seen] += sure
    return made


def part(
    label: int, seen: int, rng: np.random.Generator, share: float = 0.1, sure: float = 5.0
) -> Disagreement:
    return Disagreement("label", label, seen, 0.5, share, BOX, describe(seen, rng, sure))


def right(count: int = 40) -> list[list[Disagreement]]:
    """Images on which three parts are painted as what they look like."""
    rng = np.random.default_rng(0)
    return [[part(label, label, rng) for label in range(LABELS)] for _ in range(count)]


def missing(value: float) -> Disagreement:
    return Disagreement("missing", -1, 0, value, 1.0, BOX)


def edges(value: float, label: int = 0, length: float = 100.0) -> Disagreement:
    return Disagreement("edges", label, -1, value, length, BOX)


def test_what_is_usual_for_a_label_is_taken_away() -> None:
    """The edges of label 1 are faint everywhere."""
    images = [[edges(0.05), edges(0.5, 1)] for _ in range(20)]
    images[7] = [edges(0.3), edges(0.5, 1)]
    images[9] = [edges(0.05), edges(0.6, 1)]
    first, second, *_ = rank(images)
    assert (first.index, first.disagreement) == (7, edges(0.3))
    assert (second.index, second.disagreement) == (9, edges(0.6, 1))


def test_a_part_that_looks_like_another_label_comes_first() -> None:
    """What it looks like is said, also where the scores alone would say something else."""
    images = right()
    images[7][1] = replace(part(1, 0, np.random.default_rng(1)), other=2)
    first, *_ = rank(images)
    assert (first.index, first.disagreement.label, first.disagreement.other) == (7, 1, 0)
    assert first.score > 1


def test_a_label_that_the_model_does_not_know_is_no_mistake() -> None:
    """The scores see label 0 wherever label 1 is painted; its colour is another."""
    rng = np.random.default_rng(2)

    def unknown(looks: int) -> Disagreement:
        made = part(1, 0, rng)
        assert made.description is not None
        made.description[-1] += 8 * looks
        return made

    images = right()
    for image in images:
        image[1] = unknown(1)
    images[4][1] = unknown(0)
    first, *others = rank(images)
    assert (first.index, first.disagreement.label) == (4, 1)
    assert all(each.score < first.score / 2 for each in others)


def test_of_two_parts_that_are_as_unlikely_the_larger_comes_first() -> None:
    images = right()
    odd = part(1, 0, np.random.default_rng(1))
    images[5] = [replace(odd, weight=0.01)]
    images[6] = [replace(odd, weight=0.04)]  # in one fold with it
    first, second, *_ = rank(images)
    assert (first.index, second.index) == (6, 5)
    assert first.score == pytest.approx(2 * second.score)  # the square root of the share


def test_kinds_are_compared_by_what_one_image_in_twenty_exceeds() -> None:
    images = [[missing(0.01 * n), edges(0.001 * n)] for n in range(1, 101)]
    images[10] = [missing(0.01), edges(0.5)]
    images[20] = [missing(1.5), edges(0.001)]
    first, second, *_ = rank(images)
    assert first.index == 10
    assert second.index == 20
    assert sum(each.score > 1 for each in rank(images)) in range(5, 13)


def test_of_edges_one_image_in_fifty_is_beyond_what_is_usual() -> None:
    beyond = [
        sum(each.score > 1 for each in rank([[make(0.01 * n)] for n in range(100)]))
        for make in (missing, edges)
    ]
    assert beyond == [5, 2]


def test_where_nearly_all_is_right_the_only_mistake_comes_first() -> None:
    images = [[missing(0.0), edges(0.3)] for _ in range(30)]
    images[4] = [missing(0.2), edges(0.3)]
    images[5] = [missing(0.0), edges(0.31)]
    first = rank(images)[0]
    assert (first.index, first.disagreement.kind) == (4, "missing")


def test_edges_of_all_labels_together_tell_more_than_one() -> None:
    """Labels vary by 0.1 to and fro; on image 6 all are 0.08 worse, which no other image is."""
    images = [
        [edges(0.3 + 0.1 * ((n + label) % 3 - 1), label) for label in range(6)] for n in range(39)
    ]
    images[6] = [edges(0.38, label) for label in range(6)]
    assert rank(images)[0].index == 6


def test_the_only_label_of_an_image_is_no_mean() -> None:
    """It is judged once, by what is noise for one label: 0.075 of 0.15."""
    images = [[edges(0.3)] for _ in range(20)]
    images[4] = [edges(0.375)]
    (only,) = rank(images)
    assert (only.index, round(only.score, 6)) == (4, 0.5)


def test_long_edges_count_more() -> None:
    images = [[edges(0.3, 0, 900), edges(0.3, 1, 100)] for _ in range(20)]
    images[2] = [edges(0.3, 0, 900), edges(0.34, 1, 100)]
    images[9] = [edges(0.34, 0, 900), edges(0.3, 1, 100)]
    assert [(each.index, each.disagreement.label) for each in rank(images)] == [(9, 0), (2, 1)]


def test_a_rare_label_is_compared_with_all() -> None:
    images = [[edges(0.1)] for _ in range(20)]
    images[3] = [edges(0.1), edges(0.4, 2)]
    assert [each.index for each in rank(images)] == [3]


def lacking(value: float, label: int = 0, share: float = 1.0) -> Disagreement:
    """A part that is not judged by others: it is not described."""
    return Disagreement("label", label, 5, value, share, BOX)


def test_a_label_is_judged_by_the_share_of_its_usual_probability_that_is_lacking() -> None:
    """A tenth less is half of what a hardly known label has, and little of what another has."""
    images = [[lacking(0.1), lacking(0.8, 1)] for _ in range(20)]
    images[4] = [lacking(0.2), lacking(0.8, 1)]
    images[8] = [lacking(0.1), lacking(0.9, 1)]
    assert [each.index for each in rank(images)] == [8, 4]


def test_many_parts_on_one_image_make_nothing_usual() -> None:
    """Label 2 is on image 4 only, in as many parts as there are images that say what is usual."""
    images = [[lacking(0.1, 1, 0.3)] for _ in range(20)]
    images[4] += [lacking(0.95, 2, 0.05)] * 5
    assert [(each.index, each.disagreement.label) for each in rank(images)] == [(4, 2)]


def test_large_parts_on_one_image_make_nothing_usual() -> None:
    """Image 4 has more of the label than the 19 others together."""
    images = [[lacking(0.1, share=0.02)] for _ in range(20)]
    images[4] = [lacking(0.95, share=0.4)] * 2
    assert [each.index for each in rank(images)] == [4]


def scored(label: int, seen: int, rng: np.random.Generator, sure: float = 5.0) -> Disagreement:
    """A part whose value is what its scores say, see `find_disagreements`."""
    what = describe(seen, rng, sure)
    share = np.exp(what[:LABELS] - what[:LABELS].max())
    value = 1 - float(share[label] / share.sum())
    return Disagreement("label", label, seen, value, 0.1, BOX, what)


def test_a_label_that_is_painted_for_the_first_time_is_no_mistake() -> None:
    """Label 2 is on the last ten of 200 images only, rightly; three others have a mistake."""
    rng = np.random.default_rng(5)
    images = [[scored(label, label, rng, 3.5) for label in (0, 1)] for _ in range(200)]
    for image in images[190:]:
        image.append(scored(2, 2, rng, 3.5))
    wrong = {20, 70, 120}
    for index in wrong:
        images[index][1] = scored(1, 0, rng)
    ranked = rank(images)
    assert {each.index for each in ranked[:3]} == wrong
    of_new = [each.score for each in ranked if each.disagreement.label == 2]
    assert sum(score > 1 for score in of_new) <= 1
    assert all(score < ranked[2].score / 2 for score in of_new)


def test_a_mistake_with_a_label_that_is_painted_for_the_first_time_is_found() -> None:
    """The scores see label 0 where label 2 is painted, on one image only."""
    rng = np.random.default_rng(6)
    images = [[scored(label, label, rng) for label in (0, 1)] for _ in range(200)]
    images[195].append(scored(2, 0, rng))
    first, *_ = rank(images)
    assert (first.index, first.disagreement.label, first.disagreement.other) == (195, 2, 0)


def test_annotations_of_one_picture_do_not_vouch_for_each_other() -> None:
    """Two people paint 40 pictures, of which six have label 2, and label 1 as that on one."""
    rng = np.random.default_rng(7)
    images = [
        [part(label, label, rng) for label in (0, 1, 2) if label < 2 or picture % 7 == 0]
        for picture in range(40)
    ]
    images[11][1] = part(2, 1, rng)
    twice = images * 2
    first, second, *others = rank(twice, pictures=[index % 40 for index in range(80)])
    assert {first.index, second.index} == {11, 51}
    assert first.score == second.score
    assert all(each.score < first.score / 2 for each in others)
    apart = {each.index: each.score for each in rank(twice)}
    assert apart[11] < 0.8 * first.score


def test_annotations_of_few_pictures_are_as_few() -> None:
    """Nineteen pictures by two people: their parts are not judged by each other's."""
    images = [image for image in right(19) for _ in range(2)]
    images[6][1] = replace(part(1, 0, np.random.default_rng(1)), value=0.5)
    assert rank(images, pictures=[index // 2 for index in range(38)]) == []
    assert rank(images)[0].index in (6, 7)


def test_labels_of_other_vocabularies_are_judged_by_themselves() -> None:
    """On every second image the first two labels are in the other order."""
    turned = {0: 1, 1: 0, 2: 2}
    images = [
        [replace(each, label=turned[each.label]) for each in image] if index % 2 else image
        for index, image in enumerate(right(80))
    ]
    images[6][1] = part(1, 0, np.random.default_rng(1))
    vocabularies = [("sky", "car", "tree"), ("car", "sky", "tree")] * 40
    first, *others = rank(images, vocabularies)
    assert first.index == 6
    assert all(each.score < first.score / 2 for each in others)
    mixed = {each.index: each.score for each in rank(images)}
    assert mixed.get(6, 0.0) < 2 * max(score for index, score in mixed.items() if index != 6)


def test_a_part_with_numbers_that_are_not_finite_is_not_judged() -> None:
    images = right()
    images[7][1] = part(1, 0, np.random.default_rng(1))
    broken = part(2, 2, np.random.default_rng(2))
    assert broken.description is not None
    broken.description[0] = np.nan
    images[3][2] = broken
    assert rank(images)[0].index == 7


def test_images_that_disagree_no_more_than_usual_are_not_listed() -> None:
    images = [[*image, edges(0.1)] for image in right(9)]
    assert rank(images) == []
    images[4] = [*images[4][:-1], edges(0.4)]
    assert [(each.index, each.disagreement) for each in rank(images)] == [(4, edges(0.4))]


def test_images_without_any_disagreement_are_not_listed() -> None:
    images = [[], [missing(0.1)], [], [missing(0.2)], [missing(0.1)]]
    assert [each.index for each in rank(images)] == [3]
    assert rank([]) == []
