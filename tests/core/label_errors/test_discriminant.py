"""What a part looks like, by parts whose spread is known."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.label_errors.disagreement import (
    IntArray,
    Matrix,
    held_out_log_probabilities,
)

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


def test_a_part_is_judged_by_other_images() -> None:
    """On image 40 each part of label 2 is painted as label 0; only there."""
    found, labels, images = parts(80, 2)
    wrong = (images == 40) & (labels == 2)
    labels[wrong] = 0
    found[wrong] = MEANS[2]
    made = held_out_log_probabilities(found, labels, images, 3)
    assert (made[wrong].argmax(axis=1) == 2).all()
    assert (made[wrong][:, 0] < -4).all()


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


def test_annotations_of_one_image_are_not_counted_as_images() -> None:
    found, labels, images = parts(38, 2)
    assert np.isfinite(held_out_log_probabilities(found, labels, images, 3)).all()
    assert np.isneginf(held_out_log_probabilities(found, labels, images // 2, 3)).all()


def test_of_many_labels_with_few_parts_the_log_odds_are_no_surer() -> None:
    """A hundred labels with eight parts each, spread by 1: (a - b)' (x - (a + b) / 2)."""
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(100, 2))
    labels = np.concatenate([rng.permutation(100) for _ in range(8)])
    images = np.repeat(np.arange(160), 5)
    found = centres[labels] + rng.normal(size=(800, 2))
    made = held_out_log_probabilities(found, labels, images, 100)
    first, second = rng.integers(100, size=(2, 800))
    a, b = centres[first], centres[second]
    expected = ((a - b) * (found - (a + b) / 2)).sum(axis=1)
    odds = made[np.arange(800), first] - made[np.arange(800), second]
    judged = np.isfinite(odds)
    assert judged.mean() > 0.9
    assert np.polyfit(expected[judged], odds[judged], 1) == pytest.approx([1, 0], abs=0.1)


def test_numbers_that_are_equal_everywhere_say_nothing() -> None:
    found, labels, images = parts(40, 2)
    made = held_out_log_probabilities(found, labels, images, 3)
    longer = np.hstack([found, np.full((len(found), 1), 7.0)])
    same = held_out_log_probabilities(longer, labels, images, 3)
    assert (same.argmax(axis=1) == made.argmax(axis=1)).mean() > 0.98
    assert np.isfinite(held_out_log_probabilities(0 * found, labels, images, 3)).all()
