"""Mistakes that are planted in an annotation are found where they are, and come first."""

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from clearclip_core import RGBArray, Scores, Vocabulary
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth
from clearclip_core.label_errors import (
    BESIDE_LABELS,
    Disagreement,
    IntArray,
    Matrix,
    Ranked,
    find_disagreements,
    held_out_log_probabilities,
    rank,
)
from clearclip_core.segmentation.windows import WindowPlan

SIDE = 128
PATCH = 4
WORDS = Vocabulary.of(["sky", "car", "tree"])
SKY, CAR, TREE = range(3)
ONE_REGION = np.zeros((SIDE, SIDE), np.uint8)


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
    for each in find_disagreements(scores_of(right()), photograph(), truth, ONE_REGION):
        made.setdefault((each.kind, each.about), []).append(each)
    return made


def test_a_right_annotation_hardly_disagrees() -> None:
    for each in (each for several in found(right()).values() for each in several):
        assert each.value < 0.15, each
        assert (each.kind, each.other) != ("label", each.label), "it looks like another"


def parts_of(truth: Truth, regions: np.ndarray) -> list[Disagreement]:
    """The parts with the label "tree", the largest first."""
    made = find_disagreements(scores_of(right()), photograph(), truth, regions)
    trees = [each for each in made if each.kind == "label" and each.label == TREE]
    return sorted(trees, key=lambda each: -each.weight)


def regions_of(*boxes: tuple[slice, slice]) -> np.ndarray:
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
    made = parts_of(right(), regions_of((slice(64, 128), slice(28, 68))))
    assert [each.box[1] for each in made] == [slice(68, 128), slice(0, 28), slice(28, 68)]


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
    (loose,) = found(truth)["edges", CAR]
    assert loose.box == (slice(80 - px, 112 + px), slice(32 - px, 64 + px))
    assert loose.value == 1  # plain colours: nowhere is less contrast
    assert loose.weight == pytest.approx(4 * (32 + 2 * px), abs=4)


def test_a_plain_image_tells_nothing_of_edges_but_a_faint_edge_is_one() -> None:
    """A black frame that is rightly painted is no suspicion; in twilight 20 levels are an edge."""
    noise = np.random.default_rng(0).integers(0, 5, (SIDE, SIDE, 3))
    faint = np.stack([20 * right()] * 3, axis=2)
    for image, about in ((0 * noise, set()), (noise, set()), (faint, {SKY, CAR, TREE})):
        made = find_disagreements(scores_of(right()), image.astype(np.uint8), right(), ONE_REGION)
        assert {each.about for each in made if each.kind == "edges"} == about
        assert {each.kind for each in made} >= {"label", "missing"}


def test_a_part_is_described_by_its_scores_its_place_and_its_colour() -> None:
    (car,) = found(right())["label", CAR]
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


#: Means of three labels, by the scores of these and a fourth number.
MEANS = np.array([[2.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, -1.0], [0.0, 0.0, 2.0, 0.0]])


def parts(images: int, each: int, seed: int = 0) -> tuple[Matrix, IntArray, IntArray]:
    """Draw parts of each label on each image, spread by 1 around their means."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.repeat(np.arange(3), each), images)
    numbers = np.repeat(np.arange(images), 3 * each)
    return MEANS[labels] + rng.normal(size=(len(labels), 4)), labels, numbers


def test_log_odds_are_those_of_normal_distributions() -> None:
    """Of labels 0 and 1 with one covariance S: (m0 - m1)' S^-1 (x - (m0 + m1) / 2)."""
    rng = np.random.default_rng(1)
    _, labels, images = parts(400, 5)
    covariance = np.array(
        [[1.0, 0.6, 0.0, 0.3], [0.6, 1.5, 0.2, 0.0], [0.0, 0.2, 0.8, 0.0], [0.3, 0.0, 0.0, 2.0]]
    )
    found = rng.multivariate_normal(np.zeros(4), covariance, len(labels)) + MEANS[labels]
    made = held_out_log_probabilities(found, labels, images, 3)
    first, second = MEANS[0], MEANS[1]
    direction = np.linalg.solve(covariance, first - second)
    expected = (found - (first + second) / 2) @ direction
    odds = made[:, 0] - made[:, 1]
    assert np.corrcoef(odds, expected)[0, 1] > 0.99
    assert np.polyfit(expected, odds, 1) == pytest.approx([1, 0], abs=0.15)
    assert np.exp(made).sum(axis=1) == pytest.approx(np.ones(len(labels)))


def test_images_beside_it_do_not_vouch_for_a_part() -> None:
    """A drive of eight frames has one mistake on all; label 2 is nowhere else right or wrong."""
    found, labels, images = parts(80, 2)
    drive = (images >= 40) & (images < 48) & (labels == 2)
    labels[drive] = 0
    found[drive] = MEANS[2]
    beside = held_out_log_probabilities(found, labels, images, 3)[drive]
    apart = np.where(images >= 40, (images - 40) * 37 % 40 + 40, images)  # spread over five folds
    spread = held_out_log_probabilities(found, labels, apart, 3)[drive]
    assert (beside[:, 0] < spread[:, 0]).all()


def test_a_label_on_few_of_the_other_images_is_not_judged() -> None:
    """Label 2 is on one image of each of the first folds: judged by five others, not by four."""
    for shown, judged in ((5, 0), (6, 12)):
        found, labels, images = parts(200, 2)
        keep = (labels < 2) | ((images % 25 == 0) & (images < 25 * shown))
        found, labels, images = found[keep], labels[keep], images[keep]
        made = held_out_log_probabilities(found, labels, images, 3)
        assert np.isfinite(made[labels == 2, 2]).sum() == judged


def test_a_rare_label_is_no_less_likely() -> None:
    """Label 2 is on each tenth image: its parts are right as often as those of the others."""
    found, labels, images = parts(600, 2)
    keep = (labels < 2) | (images % 10 == 0)
    found, labels, images = found[keep], labels[keep], images[keep]
    made = held_out_log_probabilities(found, labels, images, 3)
    is_right = made.argmax(axis=1) == labels
    assert is_right[labels == 2].mean() == pytest.approx(is_right[labels < 2].mean(), abs=0.06)


def test_a_label_whose_mean_is_known_badly_is_no_less_likely() -> None:
    """Label 1 has a part on eight of 160 images, label 0 on all; both are as far from the other."""
    rng = np.random.default_rng(9)
    centres = np.zeros((2, 20))
    centres[1, 0] = np.sqrt(8)  # expected log odds of right parts: half of the squared distance
    labels = np.concatenate([np.zeros(160, np.intp), np.ones(8, np.intp)])
    images = np.concatenate([np.arange(160), np.arange(0, 160, 20)])
    odds = []
    for _ in range(30):
        found = centres[labels] + rng.normal(size=(168, 20))
        made = held_out_log_probabilities(found, labels, images, 2)
        odds.append((made[:, 1] - made[:, 0])[labels == 1].mean())
    assert np.mean(odds) == pytest.approx(4, abs=0.7)


def test_of_few_images_none_is_judged() -> None:
    for images, is_judged in ((1, False), (2, False), (19, False), (20, True)):
        made = held_out_log_probabilities(*parts(images, 3), 3)
        assert np.isfinite(made).all() == np.isfinite(made).any() == is_judged


def test_numbers_that_are_equal_everywhere_say_nothing() -> None:
    found, labels, images = parts(40, 2)
    made = held_out_log_probabilities(found, labels, images, 3)
    longer = np.hstack([found, np.full((len(found), 1), 7.0)])
    same = held_out_log_probabilities(longer, labels, images, 3)
    assert (same.argmax(axis=1) == made.argmax(axis=1)).mean() > 0.98
    assert np.isfinite(held_out_log_probabilities(0 * found, labels, images, 3)).all()


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


def ranked(images: Sequence[Sequence[Disagreement]]) -> list[Ranked]:
    """Rank annotations, each of a picture of its own."""
    return rank(images, range(len(images)))


def painted_right(count: int = 40) -> list[list[Disagreement]]:
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
    first, second, *_ = ranked(images)
    assert (first.index, first.disagreement) == (7, edges(0.3))
    assert (second.index, second.disagreement) == (9, edges(0.6, 1))


def test_a_part_that_looks_like_another_label_comes_first() -> None:
    """What it looks like is said, also where the scores alone would say something else."""
    images = painted_right()
    images[7][1] = replace(part(1, 0, np.random.default_rng(1)), other=2)
    first, *_ = ranked(images)
    assert (first.index, first.disagreement.label, first.disagreement.other) == (7, 1, 0)
    assert first.score > 1


def test_a_label_that_the_model_does_not_know_is_no_mistake() -> None:
    """The scores see label 0 wherever label 1 is painted; its colour is another."""
    rng = np.random.default_rng(2)

    def unknown(looks: int) -> Disagreement:
        made = part(1, 0, rng)
        made.description[-1] += 8 * looks
        return made

    images = painted_right()
    for image in images:
        image[1] = unknown(1)
    images[4][1] = unknown(0)
    first, *others = ranked(images)
    assert (first.index, first.disagreement.label) == (4, 1)
    assert all(each.score < first.score / 2 for each in others)


def test_of_two_parts_that_are_as_unlikely_the_larger_comes_first() -> None:
    images = painted_right()
    odd = part(1, 0, np.random.default_rng(1))
    images[5] = [replace(odd, weight=0.01)]
    images[6] = [replace(odd, weight=0.04)]  # in one fold with it
    first, second, *_ = ranked(images)
    assert (first.index, second.index) == (6, 5)
    assert first.score == pytest.approx(2 * second.score)  # the square root of the share


def test_kinds_are_compared_by_what_is_far_out_and_right_work_is_not() -> None:
    """Beyond the median are 0 to 0.5, on half of the images: 0.25 + 3 * 0.25 is far out."""
    images = [[missing(0.01 * n), edges(0.001 * n)] for n in range(1, 101)]
    assert ranked(images)[0].score < 1
    images[10] = [missing(0.01), edges(0.5)]
    images[20] = [missing(2.5), edges(0.001)]
    first, second, third, *_ = ranked(images)
    assert [each.index for each in (first, second)] == [10, 20]
    assert second.score == pytest.approx((2.5 - 0.505) / (0.25 + 3 * 0.25), rel=0.03)
    assert third.score < 1


def test_edges_of_all_labels_together_tell_more_than_one() -> None:
    """Labels vary by 0.1 to and fro; on image 6 all are 0.08 worse, which no other image is."""
    images = [[edges(0.3 + 0.1 * ((n + k) % 3 - 1), k) for k in range(6)] for n in range(39)]
    images[6] = [edges(0.38, label) for label in range(6)]
    assert ranked(images)[0].index == 6


def test_long_edges_count_more() -> None:
    images = [[edges(0.3, 0, 900), edges(0.3, 1, 100)] for _ in range(20)]
    images[2] = [edges(0.3, 0, 900), edges(0.34, 1, 100)]
    images[9] = [edges(0.34, 0, 900), edges(0.3, 1, 100)]
    found = ranked(images)
    assert [(each.index, each.disagreement.label) for each in found] == [(9, 0), (2, 1)]
    # Two labels vary less than one; 0.15 is noise.
    means = np.array([0.9 * 0.04, 0.1 * 0.04])
    assert [each.score for each in found] == pytest.approx(means * 2**0.5 / 0.15)


def test_a_rare_label_is_compared_with_all() -> None:
    images = [[edges(0.1)] for _ in range(20)]
    images[3] = [edges(0.1), edges(0.4, 2)]
    assert [each.index for each in ranked(images)] == [3]


def test_many_parts_on_one_image_make_nothing_usual() -> None:
    """Of few images parts are judged by their scores; label 2 is on image 4 only, in five parts."""
    rng = np.random.default_rng(4)
    images = [[replace(part(1, 1, rng, 0.3), value=0.1)] for _ in range(12)]
    images[4] += [replace(part(2, 2, rng, 0.05), value=0.95)] * 5
    assert [(each.index, each.disagreement.label) for each in ranked(images)] == [(4, 2)]


def scored(label: int, seen: int, rng: np.random.Generator, sure: float = 5.0) -> Disagreement:
    """A part whose value is what its scores say, see `find_disagreements`."""
    what = describe(seen, rng, sure)
    share = np.exp(what[:LABELS] - what[:LABELS].max())
    value = 1 - float(share[label] / share.sum())
    return Disagreement("label", label, seen, value, 0.1, BOX, what)


def test_a_mistake_with_a_label_that_is_painted_for_the_first_time_is_found() -> None:
    """The scores see label 0 where label 2 is painted, on one image only."""
    rng = np.random.default_rng(6)
    images = [[scored(label, label, rng) for label in (0, 1)] for _ in range(200)]
    images[195].append(scored(2, 0, rng))
    first, *_ = ranked(images)
    assert (first.index, first.disagreement.label, first.disagreement.other) == (195, 2, 0)


def test_annotations_of_one_picture_do_not_vouch_for_each_other() -> None:
    """Two people paint 40 pictures: six show label 2, and on one both paint label 1 as label 2."""
    rng = np.random.default_rng(7)
    images = [[part(k, k, rng) for k in (0, 1, 2)[: 3 if n % 7 == 0 else 2]] for n in range(40)]
    images[11][1] = part(2, 1, rng)
    twice = images * 2
    first, second, *others = rank(twice, [index % 40 for index in range(80)])
    assert {first.index, second.index} == {11, 51}
    assert first.score == second.score
    assert all(each.score < first.score / 2 for each in others)
    apart = {each.index: each.score for each in ranked(twice)}
    assert apart[11] < 0.8 * first.score


def test_annotations_of_few_pictures_are_as_few() -> None:
    """Nineteen pictures by two people: their parts are not judged by each other's."""
    images = [image for image in painted_right(19) for _ in range(2)]
    images[6][1] = replace(part(1, 0, np.random.default_rng(1)), value=0.5)
    assert rank(images, [index // 2 for index in range(38)]) == []
    assert ranked(images)[0].index in (6, 7)


def test_images_without_any_disagreement_are_not_listed() -> None:
    images = [[], [missing(0.1)], [], [missing(0.2)], [missing(0.1)]]
    assert [each.index for each in ranked(images)] == [3]
    assert ranked([]) == []
