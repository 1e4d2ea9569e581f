"""What is unusual for its label comes first."""

from __future__ import annotations

from clearclip_core.label_errors.disagreement import Disagreement, Kind
from clearclip_core.label_errors.ranking import rank

BOX = slice(0, 1), slice(0, 1)


def other(value: float, label: int = 0) -> Disagreement:
    return Disagreement("label", label, 5, value, BOX)


def edges(value: float, label: int = 0) -> Disagreement:
    return Disagreement("edges", label, -1, value, BOX)


def test_what_is_usual_for_a_label_is_taken_away() -> None:
    """Label 1 disagrees everywhere: the model does not know it."""
    images = [[other(0.05), other(0.5, 1)] for _ in range(20)]
    images[7] = [other(0.3), other(0.5, 1)]
    images[9] = [other(0.05), other(0.6, 1)]
    first, second, *_ = rank(images)
    assert (first.index, first.disagreement) == (7, other(0.3))
    assert (second.index, second.disagreement) == (9, other(0.6, 1))


def test_kinds_are_compared_by_what_one_image_in_twenty_exceeds() -> None:
    images = [[other(0.01 * n), edges(0.0001 * n)] for n in range(1, 101)]
    images[10] = [other(0.01), edges(0.02)]
    images[20] = [other(1.5), edges(0.0001)]
    first, second, *_ = rank(images)
    assert first.index == 10
    assert second.index == 20
    assert sum(each.score > 1 for each in rank(images)) in range(5, 13)


def test_where_nearly_all_is_right_the_only_mistake_comes_first() -> None:
    kind: Kind = "missing"
    images = [[Disagreement(kind, -1, 0, 0.0, BOX), edges(0.003)] for _ in range(30)]
    images[4] = [Disagreement(kind, -1, 0, 0.2, BOX), edges(0.003)]
    images[5] = [Disagreement(kind, -1, 0, 0.0, BOX), edges(0.0031)]
    first = rank(images)[0]
    assert (first.index, first.disagreement.kind) == (4, kind)


def test_a_rare_label_is_compared_with_all() -> None:
    images = [[other(0.1)] for _ in range(20)]
    images[3] = [other(0.1), other(0.4, 2)]
    assert [each.index for each in rank(images)] == [3]


def test_images_that_disagree_no_more_than_usual_are_not_listed() -> None:
    images = [[other(0.1), edges(0.001)] for _ in range(9)]
    assert rank(images) == []
    images[4] = [other(0.1), edges(0.004)]
    assert [(each.index, each.disagreement) for each in rank(images)] == [(4, edges(0.004))]


def test_images_without_any_disagreement_are_not_listed() -> None:
    images = [[], [other(0.1)], [], [other(0.2)], [other(0.1)]]
    assert [each.index for each in rank(images)] == [3]
    assert rank([]) == []
