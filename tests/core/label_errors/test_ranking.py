"""What is unusual for its label comes first."""

from __future__ import annotations

from clearclip_core.label_errors.disagreement import Disagreement
from clearclip_core.label_errors.ranking import rank

BOX = slice(0, 1), slice(0, 1)


def other(value: float, label: int = 0, share: float = 1.0) -> Disagreement:
    return Disagreement("label", label, 5, value, share, BOX)


def missing(value: float) -> Disagreement:
    return Disagreement("missing", -1, 0, value, 1.0, BOX)


def edges(value: float, label: int = 0, length: float = 100.0) -> Disagreement:
    return Disagreement("edges", label, -1, value, length, BOX)


def test_what_is_usual_for_a_label_is_taken_away() -> None:
    """Label 1 disagrees everywhere: the model does not know it."""
    images = [[other(0.05), other(0.5, 1)] for _ in range(20)]
    images[7] = [other(0.3), other(0.5, 1)]
    images[9] = [other(0.05), other(0.6, 1)]
    first, second, *_ = rank(images)
    assert (first.index, first.disagreement) == (7, other(0.3))
    assert (second.index, second.disagreement) == (9, other(0.6, 1))


def test_a_label_is_judged_by_the_share_of_its_usual_probability_that_is_lacking() -> None:
    """A tenth less is half of what a hardly known label has, and little of what another has."""
    images = [[other(0.1), other(0.8, 1)] for _ in range(20)]
    images[4] = [other(0.2), other(0.8, 1)]
    images[8] = [other(0.1), other(0.9, 1)]
    assert [each.index for each in rank(images)] == [8, 4]


def test_of_two_parts_that_are_as_unlikely_the_larger_comes_first() -> None:
    images = [[other(0.1), other(0.1)] for _ in range(20)]
    images[4] = [other(0.1), other(0.9, share=0.01)]
    images[8] = [other(0.1), other(0.9, share=0.04)]
    first, second = rank(images)
    assert (first.index, second.index) == (8, 4)
    assert first.score == 2 * second.score  # the square root of the share


def test_kinds_are_compared_by_what_one_image_in_twenty_exceeds() -> None:
    images = [[missing(0.01 * n), edges(0.001 * n)] for n in range(1, 101)]
    images[10] = [missing(0.01), edges(0.5)]
    images[20] = [missing(1.5), edges(0.001)]
    first, second, *_ = rank(images)
    assert first.index == 10
    assert second.index == 20
    assert sum(each.score > 1 for each in rank(images)) in range(5, 13)


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
    images = [[other(0.1)] for _ in range(20)]
    images[3] = [other(0.1), other(0.4, 2)]
    assert [each.index for each in rank(images)] == [3]


def test_many_parts_on_one_image_make_nothing_usual() -> None:
    """Label 2 is on image 4 only, in as many parts as there are images that say what is usual."""
    images = [[other(0.1, 1, 0.3)] for _ in range(20)]
    images[4] += [other(0.95, 2, 0.05)] * 5
    assert [(each.index, each.disagreement.label) for each in rank(images)] == [(4, 2)]


def test_large_parts_on_one_image_make_nothing_usual() -> None:
    """Image 4 has more of the label than the 19 others together."""
    images = [[other(0.1, share=0.02)] for _ in range(20)]
    images[4] = [other(0.95, share=0.4)] * 2
    assert [each.index for each in rank(images)] == [4]


def test_images_that_disagree_no_more_than_usual_are_not_listed() -> None:
    images = [[other(0.1), edges(0.1)] for _ in range(9)]
    assert rank(images) == []
    images[4] = [other(0.1), edges(0.4)]
    assert [(each.index, each.disagreement) for each in rank(images)] == [(4, edges(0.4))]


def test_images_without_any_disagreement_are_not_listed() -> None:
    images = [[], [other(0.1)], [], [other(0.2)], [other(0.1)]]
    assert [each.index for each in rank(images)] == [3]
    assert rank([]) == []
