"""The confusion matrix against pixel by pixel counting, and against torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from clearclip_core.evaluation.metrics import ConfusionMatrix
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


def test_every_pixel_is_counted_once() -> None:
    truth, predicted = maps(0)
    counts = [[0] * CLASSES for _ in range(CLASSES)]
    for y in range(truth.shape[0]):
        for x in range(truth.shape[1]):
            if truth[y, x] != 255:
                counts[truth[y, x]][predicted[y, x]] += 1
    assert ConfusionMatrix.of(truth, predicted, CLASSES).counts.tolist() == counts


def test_the_measures_of_several_pictures_are_those_of_sets_of_pixels() -> None:
    pairs = [maps(seed, (5 + seed, 9)) for seed in range(4)]
    confusion = ConfusionMatrix.sum([ConfusionMatrix.of(*pair, CLASSES) for pair in pairs])
    truth = np.concatenate([pair[0].ravel() for pair in pairs])
    predicted = np.concatenate([pair[1].ravel() for pair in pairs])
    ious = []
    for label in range(CLASSES):
        here = {i for i, value in enumerate(truth) if value == label}
        found = {i for i, value in enumerate(predicted) if value == label and truth[i] != IGNORE}
        ious.append(len(here & found) / len(here | found))
    counted = truth != IGNORE
    assert confusion.iou.tolist() == ious
    assert confusion.mean_iou == pytest.approx(sum(ious) / CLASSES, abs=1e-15)
    assert confusion.pixel_accuracy == (truth == predicted)[counted].sum() / counted.sum()


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
    confusion = ConfusionMatrix.sum(parts)
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


def test_pixels_that_do_not_count_may_be_predicted_anything() -> None:
    truth = np.full((2, 2), IGNORE, np.uint8)
    confusion = ConfusionMatrix.of(truth, np.array([[-1, 0], [99, 1]]), 3)
    assert confusion.counts.sum() == 0
    assert math.isnan(confusion.mean_iou)
    assert math.isnan(confusion.pixel_accuracy)


def test_parts_add_up_in_any_order() -> None:
    parts = [ConfusionMatrix.of(*maps(seed), CLASSES) for seed in range(9)]
    whole = ConfusionMatrix.sum(parts).counts
    split = [
        ConfusionMatrix.sum(parts[2::3]),
        ConfusionMatrix.sum(parts[0::3]),
        ConfusionMatrix.sum(parts[1::3]),
    ]
    assert (ConfusionMatrix.sum(split).counts == whole).all()
    assert (ConfusionMatrix.sum([*parts, ConfusionMatrix.empty(CLASSES)]).counts == whole).all()


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
