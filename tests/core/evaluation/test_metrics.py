"""Confusion matrix, overlap of masks, boundaries."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from clearclip_core import BoolMask
from clearclip_core.evaluation.metrics import ConfusionMatrix, MaskOverlap, mask_overlaps
from clearclip_core.images.label_maps import IGNORE

CLASSES = 7


def maps(seed: int, size_hw: tuple[int, int] = (13, 17)) -> tuple[np.ndarray, np.ndarray]:
    """Ground truth with ignored pixels, and a prediction that is often right."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, size_hw).astype(np.uint8)
    guesses = rng.integers(0, CLASSES, size_hw)
    predicted = np.where(rng.random(size_hw) < 0.6, truth, guesses).astype(np.int16)
    truth[rng.random(size_hw) < 0.2] = IGNORE
    return truth, predicted


def test_torchmetrics_agrees_on_a_data_set() -> None:
    jaccard = MulticlassJaccardIndex(CLASSES, average=None, ignore_index=IGNORE)
    mean = MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=IGNORE)
    accuracy = MulticlassAccuracy(CLASSES, average="micro", ignore_index=IGNORE)
    parts = []
    for seed in range(6):
        truth, predicted = maps(seed)
        parts.append(ConfusionMatrix.of(truth, predicted, CLASSES))
        both = torch.from_numpy(predicted).long(), torch.from_numpy(truth).long()
        for metric in (jaccard, mean, accuracy):
            metric.update(*both)
    confusion = sum(parts, ConfusionMatrix.empty(CLASSES))
    assert np.allclose(confusion.iou, jaccard.compute().numpy(), atol=1e-6)
    assert confusion.mean_iou == pytest.approx(float(mean.compute()), abs=1e-6)
    assert confusion.pixel_accuracy == pytest.approx(float(accuracy.compute()), abs=1e-6)


def test_a_class_that_is_nowhere_is_left_out_and_one_that_is_only_predicted_counts() -> None:
    truth = np.array([[0, 0, 0, 0]])
    predicted = np.array([[0, 0, 0, 2]])
    confusion = ConfusionMatrix.of(truth, predicted, 4)
    assert confusion.iou[[0, 2]].tolist() == [0.75, 0]
    assert np.isnan(confusion.iou[[1, 3]]).all()
    assert confusion.mean_iou == 0.375
    nothing = ConfusionMatrix.of(np.full((1, 4), IGNORE), np.array([[-1, 0, 99, 1]]), 3)
    assert nothing.counts.sum() == 0
    assert math.isnan(nothing.mean_iou)
    assert math.isnan(nothing.pixel_accuracy)


@pytest.mark.parametrize(
    ("truth", "predicted", "sentence"),
    [
        ([[0, 7]], [[0, 0]], "argument `truth` to hold classes 0 to 6, but got 0 to 7"),
        ([[0, 1]], [[0, -1]], "argument `predicted` to hold classes 0 to 6, but got -1 to 0"),
        ([[0, 1]], [[0], [1]], r"the truth's shape \(1, 2\), but got \(2, 1\)"),
    ],
)
def test_what_is_no_class_is_refused(truth: list, predicted: list, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ConfusionMatrix.of(np.array(truth), np.array(predicted), CLASSES)


def square(left: int, right: int) -> BoolMask:
    mask = np.zeros((10, 10), bool)
    mask[2:8, left:right] = True
    return mask


def test_pixels_and_boundary_bands_are_counted() -> None:
    """6 rows by 4 columns each, half of it shared; the band of 10 px diagonals is a pixel wide.

    A band of 6 x 4 has 16 pixels. Both bands have the top and bottom rows of the two shared columns
    in common: the left one's right edge is inside the right one.
    """
    made = MaskOverlap.of(square(1, 5), square(3, 7))
    assert made == MaskOverlap(24, 24, 12, band_shared_px=4, band_px=28)
    assert made.iou == pytest.approx(12 / 36)
    assert made.boundary_iou == pytest.approx(4 / 28)
    assert made.saved_paint == pytest.approx(1 - 24 / 24)


def test_a_missing_mask_covers_nothing() -> None:
    assert MaskOverlap.of(square(1, 5), None) == MaskOverlap(predicted_px=24, band_px=16)
    assert MaskOverlap.of(None, square(1, 5)) == MaskOverlap(true_px=24, band_px=16)
    nothing = MaskOverlap.of(None, None)
    assert (nothing.iou, nothing.boundary_iou, nothing.saved_paint) == (None, None, None)


def test_uncounted_pixels_are_on_no_side() -> None:
    truth = np.array([[0, 255, 254, 1]], np.uint8)
    sky, car = mask_overlaps({0: np.array([[True, True, True, False]])}, truth, 2)
    assert (sky.predicted_px, sky.true_px, sky.shared_px) == (2, 1, 1)
    assert (car.predicted_px, car.true_px, car.shared_px) == (0, 1, 0)
