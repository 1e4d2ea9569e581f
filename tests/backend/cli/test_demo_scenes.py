"""Drawn scenes and how predictions of them are measured."""

from __future__ import annotations

import io

import numpy as np
import pytest
from label_studio_sdk.converter.brush import encode_rle
from PIL import Image

from backend.cli.demo import predicted_label_map, scene_file, scene_seed, scenes_mean_iou
from clearclip_core import SCENE_LABELS, render_scene


def test_scenes_are_named_after_their_seeds() -> None:
    name, content = scene_file(7)
    assert scene_seed(f"/data/upload/1/0a1b2c3d-{name}") == 7
    assert (np.asarray(Image.open(io.BytesIO(content))) == render_scene(7).image).all()
    with pytest.raises(ValueError, match="name a drawn scene"):
        scene_seed("/data/upload/7/0a1b2c3d-holiday.png")


def test_a_stored_prediction_of_the_truth_is_the_truth() -> None:
    truth = render_scene(3, size_hw=(48, 64)).label_map
    result = [
        {
            "value": {
                "rle": encode_rle((np.repeat(truth.ravel() == index, 4) * 255).astype(np.uint8)),
                "brushlabels": [SCENE_LABELS[index]],
            },
        }
        for index in np.unique(truth)[:-1]  # the last label is predicted nowhere
    ]
    predicted = predicted_label_map(result, truth.shape)
    last = np.unique(truth)[-1]
    assert (predicted == np.where(truth == last, -1, truth)).all()


def test_mean_iou_is_that_of_a_loop_over_the_pixels() -> None:
    random = np.random.default_rng(0)
    pairs = [(random.integers(-1, 5, (6, 7)), random.integers(0, 7, (6, 7))) for _ in range(3)]
    ious = []
    for label in range(7):
        both = either = 0
        for predicted, true in pairs:
            for p, t in zip(predicted.flat, true.flat, strict=True):
                both += p == label and t == label
                either += p == label or t == label
        ious.append(both / either)
    assert scenes_mean_iou(pairs) == pytest.approx(np.mean(ious))
