"""What a part looks like, by parts whose spread is known."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.label_errors.discriminant import (
    Float64Array,
    IntArray,
    held_out_log_probabilities,
)

#: Means of three labels, by the scores of these and a fourth number.
MEANS = np.array([[2.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, -1.0], [0.0, 0.0, 2.0, 0.0]])


def parts(images: int, each: int, seed: int = 0) -> tuple[Float64Array, IntArray, IntArray]:
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


def test_a_label_that_nobody_else_paints_is_judged_by_its_scores() -> None:
    found, labels, images = parts(40, 2)
    keep = labels != 2
    found, labels, images = (found + 2 * MEANS[labels])[keep], labels[keep], images[keep]
    labels[0], labels[1] = 2, 2
    found[0], found[1] = 3 * MEANS[2], 3 * MEANS[0]
    seen, unseen, *_ = held_out_log_probabilities(found, labels, images, 3)
    assert seen.argmax() == 2
    assert unseen.argmax() == 0


def test_one_image_alone_says_nothing() -> None:
    found, labels, images = parts(1, 3)
    made = held_out_log_probabilities(found, labels, images, 3)
    assert made == pytest.approx(np.full((9, 3), -np.log(3)))


def test_numbers_that_are_equal_everywhere_say_nothing() -> None:
    found, labels, images = parts(40, 2)
    made = held_out_log_probabilities(found, labels, images, 3)
    longer = np.hstack([found, np.full((len(found), 1), 7.0)])
    same = held_out_log_probabilities(longer, labels, images, 3)
    assert (same.argmax(axis=1) == made.argmax(axis=1)).mean() > 0.98
    assert np.isfinite(held_out_log_probabilities(0 * found, labels, images, 3)).all()


def test_of_few_parts_the_scores_tell() -> None:
    """Six images of three parts, of which scores tell more than all other numbers."""
    rng = np.random.default_rng(3)
    found = rng.normal(size=(18, 8))
    labels, images = np.tile(np.arange(3), 6), np.repeat(np.arange(6), 3)
    found[np.arange(18), labels] += 6
    made = held_out_log_probabilities(found, labels, images, 3)
    assert (made.argmax(axis=1) == labels).mean() > 0.9
