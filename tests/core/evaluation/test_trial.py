"""Another way to predict, judged on held-out images, beside plain counting."""

import numpy as np
import pytest

from clearclip_core.evaluation.trial import Counts, count_overlaps, judge

IGNORED, NO_LABEL = 255, 254


def test_pixels_are_counted_by_label() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, NO_LABEL, IGNORED], (30, 40)).astype(np.uint8)
    made = rng.integers(-1, 3, (30, 40)).astype(np.int16)
    found = count_overlaps(made, truth, 3)
    pixels = [(m, t) for m, t in zip(made.flat, truth.flat, strict=True) if t != IGNORED]
    for label in range(3):
        assert found[label].tolist() == [
            sum(m == label == t for m, t in pixels),
            sum(m == label for m, _ in pixels),
            sum(t == label for _, t in pixels),
        ]


def counts(*ious: float) -> Counts:
    """Of labels with so much of their 100 pixels found, and nothing else predicted."""
    return np.array([(round(100 * iou), round(100 * iou), 100) for iou in ious], np.int64)


def test_the_gain_is_that_of_the_mean_iou() -> None:
    trial = judge(
        [counts(0.5, 0.2), counts(0.7, 0.2)] * 5, [counts(0.6, 0.4), counts(0.8, 0.4)] * 5
    )
    assert trial.gain == pytest.approx((0.1 + 0.2) / 2)
    assert trial.is_better


def test_what_one_picture_in_many_gains_is_not_enough() -> None:
    """Its gain is not in most draws; on the others the way loses a little."""
    now = [counts(0.5)] * 8
    trial = judge(now, [counts(0.9), *[counts(0.46)] * 7])
    assert trial.gain == pytest.approx((0.9 + 7 * 0.46) / 8 - 0.5)
    assert trial.gain > 0
    assert not trial.is_better


def test_a_label_that_surely_loses_is_named_and_decides() -> None:
    trial = judge([counts(0.2, 0.5, 0.5)] * 8, [counts(0.9, 0.45, 0.48)] * 8)
    assert trial.gain > 0.1
    assert trial.losing == (1,)
    assert not trial.is_better


def test_a_label_that_is_nowhere_has_no_say() -> None:
    absent = np.zeros((1, 3), np.int64)
    wrongly = np.array([[0, 50, 0]], np.int64)
    now, other = (np.vstack([counts(iou), each]) for iou, each in ((0.5, absent), (0.6, wrongly)))
    assert judge([now] * 4, [other] * 4).gain == pytest.approx(0.1)


@pytest.mark.parametrize("number", [0, 2])
def test_as_many_images_are_expected(number: int) -> None:
    with pytest.raises(ValueError, match="as many images twice"):
        judge([counts(0.5)] * number, [counts(0.5)])
