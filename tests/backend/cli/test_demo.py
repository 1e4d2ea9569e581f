"""The command `clearclip-backend demo`: its arguments, and how drawn scenes are measured."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter.brush import encode_rle
from PIL import Image

from backend.cli.demo import predicted_label_map, run_demo, scene_file, scene_seed, scenes_mean_iou
from backend.cli.demo_servers import DemoError
from clearclip_core import SCENE_LABELS, render_scene


@pytest.mark.parametrize("options", [{"labels": ["sky"]}, {"images": Path()}])
def test_pictures_and_labels_go_together(options: dict[str, Any]) -> None:
    with pytest.raises(DemoError, match="give both, or none"):
        run_demo(**options)


def test_a_folder_without_pictures_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "._hidden.jpg").touch()  # macOS's, beside a photo
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(DemoError, match=r"There is no picture \(.*\.png.*\) in "):
        run_demo(images=tmp_path, labels=["sky"], label_studio_command="nowhere")


def test_scenes_are_named_after_their_seeds() -> None:
    name, content = scene_file(7)
    assert scene_seed(f"/data/upload/1/0a1b2c3d-{name}") == 7
    assert (np.asarray(Image.open(io.BytesIO(content))) == render_scene(7).image).all()
    with pytest.raises(ValueError, match="name a drawn scene"):
        scene_seed("/data/upload/7/0a1b2c3d-holiday.png")


def test_a_stored_prediction_of_the_truth_is_the_truth() -> None:
    truth = render_scene(3).label_map
    result = [
        {
            "value": {
                "rle": encode_rle((np.repeat(truth.ravel() == index, 4) * 255).astype(np.uint8)),
                "brushlabels": [SCENE_LABELS[index]],
            },
        }
        for index in np.unique(truth)
    ]
    last = np.unique(truth)[-1]
    predicted = predicted_label_map(result[:-1], truth.shape)
    assert (predicted == np.where(truth == last, len(SCENE_LABELS), truth)).all()
    assert scenes_mean_iou({3: result}) == 1
    assert scenes_mean_iou({3: result[:-1]}) == pytest.approx(1 - 1 / len(result))
