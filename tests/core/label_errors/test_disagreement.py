"""Mistakes that are planted in an annotation are found where they are."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from clearclip_core import RGBArray, Scores, Vocabulary, WindowPlan
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


def photograph() -> RGBArray:
    """Each label in a colour of its own."""
    colours = np.array([(90, 140, 220), (200, 40, 40), (40, 110, 50)], np.uint8)
    return colours[right()]


def found(truth: Truth) -> dict[tuple[str, int], list[Disagreement]]:
    made: dict[tuple[str, int], list[Disagreement]] = {}
    for each in find_disagreements(scores_of(right()), photograph(), truth):
        made.setdefault((each.kind, each.about), []).append(each)
    return made


def the_edges(truth: Truth) -> Disagreement:
    (edges,) = found(truth)["edges", CAR]
    return edges


def test_a_right_annotation_hardly_disagrees() -> None:
    for each in (each for several in found(right()).values() for each in several):
        assert each.value < 0.15, each


def test_another_label_is_found_with_its_place() -> None:
    truth = right()
    truth[80:112, 32:64] = SKY
    sky, car = found(truth)["label", SKY]
    assert sky.value < 0.1
    assert (car.label, car.other, car.box) == (SKY, CAR, (slice(80, 112), slice(32, 64)))
    assert car.value > 0.9
    assert car.weight == pytest.approx(32 * 32 / SIDE**2)


def parts_of(truth: Truth, regions: np.ndarray) -> list[Disagreement]:
    """The parts with the label "tree", the largest first."""
    made = find_disagreements(scores_of(right()), photograph(), truth, regions)
    trees = [each for each in made if each.kind == "label" and each.label == TREE]
    return sorted(trees, key=lambda each: -each.weight)


def regions_of(*boxes: tuple[slice, slice]) -> np.ndarray:
    """Regions painted one after the other on the first, which is everywhere."""
    regions = np.full((SIDE, SIDE), 300, np.uint16)
    for number, box in enumerate(boxes, 301):
        regions[box] = number
    return regions


def test_a_thing_with_the_label_of_what_it_touches_is_found_where_it_is_a_region() -> None:
    truth, place = right(), (slice(80, 112), slice(32, 64))
    truth[place] = TREE
    (joined,) = parts_of(truth, regions_of())
    assert joined.box == (slice(64, 128), slice(0, 128))
    assert joined.value < 0.2
    trees, car = parts_of(truth, regions_of(place))
    assert (car.label, car.other, car.box) == (TREE, CAR, place)
    assert car.value > 0.9
    assert car.weight == pytest.approx(32 * 32 / SIDE**2)
    assert trees.value < 0.1
    assert trees.weight == pytest.approx((64 * 128 - 32 * 32) / SIDE**2)


def test_the_connected_parts_of_a_region_are_judged_one_by_one() -> None:
    """A region around the car lies between two parts of another one."""
    columns = [
        each.box[1] for each in parts_of(right(), regions_of((slice(64, 128), slice(28, 68))))
    ]
    assert columns == [slice(68, 128), slice(0, 28), slice(28, 68)]


def test_small_regions_count_with_the_largest_that_they_touch() -> None:
    """Strokes of 4 x 4 px are less than two thousandths of the image."""
    strokes = [(slice(y, y + 4), slice(x, x + 4)) for y in (70, 80, 120) for x in (0, 40, 90)]
    strip = (slice(64, 128), slice(120, 128))
    truth = right()
    truth[80:112, 32:64] = TREE
    trees, strips = parts_of(truth, regions_of(*strokes, strip))
    assert trees.weight == pytest.approx(64 * 120 / SIDE**2)
    assert strips.box == strip


def test_regions_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"region map of size \(128, 128\), but got one of \(12"):
        parts_of(right(), regions_of()[1:])


def test_a_missing_thing_is_found_with_its_place() -> None:
    truth = right()
    truth[80:112, 32:64] = NOTHING
    made = found(truth)
    (worst,) = made["missing", CAR]
    assert (worst.label, worst.other) == (-1, CAR)
    assert worst.box[0].start in range(78, 83)
    assert worst.box[1].stop in range(62, 67)
    inside = 28 * 28 / SIDE**2  # without the margin of two places on each side
    assert worst.value == pytest.approx(math.sqrt(inside), rel=0.1)
    assert [each.value for each in made["missing", TREE]] == [0]


def test_a_thin_seam_or_what_is_not_counted_is_not_missing() -> None:
    truth = right()
    truth[62:65] = NOTHING
    truth[80:112, 32:64] = IGNORE
    made = found(truth)
    missing = [each for (kind, _), several in made.items() if kind == "missing" for each in several]
    assert [each.value for each in missing] == [0, 0, 0]
    assert ("label", CAR) not in made
    assert ("edges", CAR) not in made


@pytest.mark.parametrize("px", [-8, 8])
def test_edges_where_the_image_has_none_are_found(px: int) -> None:
    truth = right()
    truth[80:112, 32:64] = TREE
    truth[80 - px : 112 + px, 32 - px : 64 + px] = CAR
    loose = the_edges(truth)
    assert loose.box == (slice(80 - px, 112 + px), slice(32 - px, 64 + px))
    assert loose.value == 1  # plain colours: nowhere is less contrast
    assert loose.weight == pytest.approx(4 * (32 + 2 * px), abs=4)
    assert the_edges(right()).value < 0.15


def test_edges_are_looked_at_in_a_small_image_where_it_is_large() -> None:
    """Two px off at eight times the size is less than a pixel."""
    plan = WindowPlan((8 * SIDE,) * 2, (8 * SIDE,) * 2, 8 * SIDE, 8 * SIDE, (8 * PATCH,) * 2)
    scores = Scores(scores_of(right()).cosines, plan, WORDS)
    image, truth = (np.kron(each, np.ones((8, 8), np.uint8)) for each in (right(), right()))
    truth[8 * 80 - 2 : 8 * 112 + 2, 8 * 32 - 2 : 8 * 64 + 2] = CAR
    rgb = np.stack([80 * image] * 3, axis=2)
    made = find_disagreements(scores, rgb, truth)
    (edges,) = [each for each in made if each.kind == "edges" and each.label == CAR]
    assert edges.value < 0.15
    assert edges.box == (slice(8 * 80 - 2, 8 * 112 + 2), slice(8 * 32 - 2, 8 * 64 + 2))


@pytest.mark.parametrize("noise", [0, 4])
def test_a_plain_image_tells_nothing_of_edges(noise: int) -> None:
    """A black frame that is rightly painted is no suspicion."""
    levels = np.random.default_rng(0).integers(0, noise + 1, (SIDE, SIDE, 3))
    made = find_disagreements(scores_of(right()), levels.astype(np.uint8), right())
    assert {each.kind for each in made} == {"label", "missing"}


def test_a_faint_edge_is_one() -> None:
    """Twilight: the labels are 20 grey levels apart."""
    faint = np.stack([20 * right()] * 3, axis=2)
    made = find_disagreements(scores_of(right()), faint, right())
    assert {each.about for each in made if each.kind == "edges"} == {SKY, CAR, TREE}


def test_another_size_is_refused() -> None:
    for image, truth in ((photograph(), right()[1:]), (photograph()[1:], right())):
        with pytest.raises(ValueError, match="Expected an image and a label map of size"):
            find_disagreements(scores_of(right()), image, truth)


def test_more_labels_than_a_map_has_values_are_refused() -> None:
    many = Vocabulary.of([f"label {number}" for number in range(255)])
    few = scores_of(right())
    scores = Scores(few.cosines.new_zeros(255, *few.cosines.shape[1:]), few.plan, many)
    with pytest.raises(ValueError, match="at most 254 labels, but got 255"):
        find_disagreements(scores, photograph(), right())


def test_a_part_is_described_by_its_scores_its_place_and_its_colour() -> None:
    (car,) = found(right())["label", CAR]
    assert car.description is not None
    logits, (row, column), (log_share,), colour, spread = np.split(car.description, [4, 6, 7, 10])
    assert logits.argmax() == CAR
    assert logits.sum() == pytest.approx(0, abs=1e-4)
    assert logits[-1] == pytest.approx(0, abs=1e-4)  # there are no contrast words
    assert logits[CAR] - logits[SKY] == pytest.approx(50 * 0.2, rel=0.1)
    assert (row, column) == (pytest.approx(96 / SIDE), pytest.approx(48 / SIDE))
    assert log_share == pytest.approx(math.log(32 * 32 / SIDE**2))
    red = cv2.cvtColor(np.full((1, 1, 3), (200, 40, 40), np.uint8), cv2.COLOR_RGB2LAB)
    assert colour == pytest.approx(red[0, 0] / 255, abs=1e-5)
    assert spread == pytest.approx(np.zeros(3), abs=1e-3)


def test_contrast_words_are_part_of_the_description() -> None:
    words = Vocabulary.of(["sky", "car", "tree"], contrast=("thing",))
    plain = scores_of(right())
    more = torch.cat([plain.cosines, torch.full_like(plain.cosines[:1], 0.1)])
    made = find_disagreements(Scores(more, plain.plan, words), photograph(), right())
    (car,) = [each for each in made if each.kind == "label" and each.label == CAR]
    assert car.description is not None
    assert car.description[3] - car.description[SKY] == pytest.approx(50 * 0.1, rel=0.1)
