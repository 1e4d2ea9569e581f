"""Training a tiny CLIP on a folder of pictures with label maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clearclip_core import Segmenter
from clearclip_core.demo import training
from clearclip_core.demo.training import (
    by_cell,
    found_loss,
    possible_loss,
    train_demo,
)
from clearclip_core.demo.training_images import Crops
from tests.core.demo.halves import make_folder


@pytest.fixture
def _short_text_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words are not what is tested."""
    monkeypatch.setattr(training, "_TEXT_STEPS", 2)


def test_data_and_names_belong_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_demo(["--data", str(tmp_path)])
    assert "--data and --names belong together" in capsys.readouterr().err


def test_a_folder_that_does_not_fit_ends_with_a_sentence(tmp_path: Path) -> None:
    _, names = make_folder(tmp_path, "")
    with pytest.raises(SystemExit, match=r"Expected a folder at .*images/val, but there is none"):
        train_demo(["--data", str(tmp_path), "--part", "val", "--names", str(names)])


def test_labels_of_a_cell_are_asked_of_its_own_patches() -> None:
    """The left half of the patches shows one label and the right half another, without doubt."""
    log_p = torch.full((1, 8, 8, 2), -20.0)
    log_p[:, :, :4, 0] = log_p[:, :, 4:, 1] = 0.0
    one, other = [True, False], [False, True]

    def found(cells: list[list[bool]]) -> float:
        present = torch.tensor([cells])
        whole = torch.ones(1, 2, dtype=torch.bool)
        made = Crops(torch.empty(1, 3, 128, 128), whole, ~whole, present, ~present)
        patches = by_cell(log_p.flatten(1, 2), made)
        return float(possible_loss(patches, made) + found_loss(patches, made))

    assert found([one, other, one, other]) < 0.01
    assert found([other, one, other, one]) > 5


@pytest.mark.thorough
@pytest.mark.usefixtures("_short_text_training")
def test_a_model_is_trained_on_a_folder(tmp_path: Path) -> None:
    data, names = make_folder(tmp_path, "")
    arguments = ["--data", str(data), "--names", str(names), "--minutes", "0.02"]
    train_demo([*arguments, "--out", str(tmp_path / "made")])
    segmenter = Segmenter.load(f"local-dir:{tmp_path / 'made'}", device="cpu")
    labels = segmenter.segment(np.zeros((64, 80, 3), np.uint8), ["sky", "pavement"]).label_map
    assert labels.shape == (64, 80)
    assert torch.isfinite(segmenter.embed(["sky", "sidewalk", "xylophone"])).all()
