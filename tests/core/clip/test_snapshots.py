"""Folders of transformers' format, read without a word and without gaps."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import Tipsv2Model

from clearclip_core.clip.snapshots import read_snapshot
from tests.core.clip.tipsv2_models import write_tipsv2


def test_nothing_is_drawn_into_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_tipsv2(tmp_path)
    capfd.readouterr()
    read_snapshot(Tipsv2Model, folder)
    assert capfd.readouterr() == ("", "")


def test_weights_with_gaps_are_refused(tmp_path: Path) -> None:
    file = write_tipsv2(tmp_path) / "model.safetensors"
    weights = load_file(file)
    weights.pop("vision_encoder.cls_token")
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing, such as vision_model\."):
        read_snapshot(Tipsv2Model, tmp_path)
