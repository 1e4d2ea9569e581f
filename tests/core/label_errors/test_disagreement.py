"""Mistakes that are planted in an annotation are found where they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clearclip_core import Scores, Vocabulary, WindowPlan
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth
from clearclip_core.label_errors.disagreement import Disagreement, find_disagreements

SIDE = 128
PATCH = 4
WORDS = Vocabulary.of(["sky", "car", "tree"])
SKY, CAR, TREE = range(3)


def right() -> Truth:
    """Sky above trees, and a car on these."""
    truth = np.full((SIDE, SIDE), SKY, np.uint8)
    truth[64:] = TREE
    truth[80:112, 32:64] = CAR
    return truth


def scores_of(label_map: Truth) -> Scores:
    """Scores that are sure of a label map: of each patch the label of its pixels."""
    grid = label_map[::PATCH, ::PATCH].astype(int)
    cosines = 0.2 * np.eye(len(WORDS.labels), dtype=np.float32)[grid].transpose(2, 0, 1)
    plan = WindowPlan((SIDE, SIDE), (SIDE, SIDE), SIDE, SIDE, (PATCH, PATCH))
    return Scores(torch.from_numpy(np.ascontiguousarray(cosines)), plan, WORDS)


def found(truth: Truth) -> dict[tuple[str, int], Disagreement]:
    scores = scores_of(right())
    made = find_disagreements(scores, right().astype(np.int16), truth)
    return {(each.kind, each.about): each for each in made}


def test_a_right_annotation_hardly_disagrees() -> None:
    for each in found(right()).values():
        assert each.value < 0.005, each


def test_another_label_is_found_with_its_place() -> None:
    truth = right()
    truth[80:112, 32:64] = SKY
    worst = found(truth)["label", SKY]
    assert (worst.label, worst.other) == (SKY, CAR)
    assert worst.box == (slice(80, 112), slice(32, 64))
    share = 32 * 32 / SIDE**2
    assert 0.8 * math.sqrt(share) < worst.value < math.sqrt(share)
    assert found(truth)["label", TREE].value == 0


def test_a_part_counts_by_itself_beside_a_right_one_of_its_label() -> None:
    truth = right()
    truth[10:20, 100:110] = TREE
    assert found(truth)["label", TREE].box == (slice(10, 20), slice(100, 110))


def test_a_missing_thing_is_found_with_its_place() -> None:
    truth = right()
    truth[80:112, 32:64] = NOTHING
    made = found(truth)
    worst = made["missing", CAR]
    assert (worst.label, worst.other) == (-1, CAR)
    assert worst.box[0].start in range(78, 83)
    assert worst.box[1].stop in range(62, 67)
    inside = 28 * 28 / SIDE**2  # without the margin of two places on each side
    assert worst.value == pytest.approx(math.sqrt(inside), rel=0.1)
    assert made["missing", TREE].value == 0


def test_a_thin_seam_or_what_is_not_counted_is_not_missing() -> None:
    truth = right()
    truth[62:65] = NOTHING
    truth[80:112, 32:64] = IGNORE
    made = found(truth)
    assert all(each.value == 0 for (kind, _), each in made.items() if kind == "missing")
    assert ("label", CAR) not in made
    assert ("edges", CAR) not in made


@pytest.mark.parametrize("px", [1, 2])
def test_edges_are_measured_in_shares_of_the_diagonal(px: int) -> None:
    truth = right()
    truth[80 - px : 112 + px, 32 - px : 64 + px] = CAR
    edges = found(truth)["edges", CAR]
    assert edges.value * SIDE * math.sqrt(2) == pytest.approx(px, abs=0.35)
    assert edges.box == (slice(80 - px, 112 + px), slice(32 - px, 64 + px))


def test_far_edges_count_as_a_boundary_band_at_most() -> None:
    truth = right()
    truth[30:60, 80:120] = CAR
    assert found(truth)["edges", CAR].value < 0.0201


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected label maps of size"):
        find_disagreements(scores_of(right()), right().astype(np.int16), right()[1:])


def test_more_labels_than_a_map_has_values_are_refused() -> None:
    many = Vocabulary.of([f"label {number}" for number in range(255)])
    few = scores_of(right())
    scores = Scores(few.cosines.new_zeros(255, *few.cosines.shape[1:]), few.plan, many)
    with pytest.raises(ValueError, match="at most 254 labels, but got 255"):
        find_disagreements(scores, right().astype(np.int16), right())
