"""Training a tiny CLIP on a folder of pictures with label maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from clearclip_core import Segmenter
from clearclip_core.demo import text_training
from clearclip_core.demo.architecture import CONFIG
from clearclip_core.demo.crops import Crops
from clearclip_core.demo.losses import PresenceLosses
from clearclip_core.demo.train import faster_in_bfloat16, main
from tests.core.demo.halves import make_folder


@pytest.fixture
def _short_text_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words are not what is tested."""
    monkeypatch.setattr(text_training, "_TEXT_STEPS", 2)


@pytest.mark.usefixtures("_short_text_training")
def test_a_model_is_trained_on_a_folder(tmp_path: Path) -> None:
    data, names = make_folder(tmp_path, "train")
    out = tmp_path / "weights"
    main(
        [
            *("--data", str(data), "--part", "train", "--names", str(names)),
            *("--minutes", "0.02", "--out", str(out)),
        ]
    )
    segmenter = Segmenter.load(f"local-dir:{out}", device="cpu")
    labels = segmenter.segment(np.zeros((64, 80, 3), np.uint8), ["sky", "pavement"]).label_map
    assert labels.shape == (64, 80)
    assert torch.isfinite(segmenter.embed(["sky", "sidewalk", "xylophone"])).all()


def test_data_and_names_belong_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path)])
    assert "--data and --names belong together" in capsys.readouterr().err


def test_a_folder_that_does_not_fit_ends_with_a_sentence(tmp_path: Path) -> None:
    _, names = make_folder(tmp_path, "")
    with pytest.raises(SystemExit, match=r"Expected a folder at .*images/val, but there is none"):
        main(["--data", str(tmp_path), "--part", "val", "--names", str(names)])


def batch() -> Crops:
    present = torch.tensor([[True, False], [True, True]])
    return Crops(torch.rand(2, 3, 64, 64), present, ~present)


def losses() -> PresenceLosses:
    torch.manual_seed(0)
    return PresenceLosses(open_clip.CLIP(**CONFIG["model_cfg"]), torch.eye(2, 128))


@pytest.mark.parametrize(("seconds", "faster"), [((3.0, 5.0), True), ((5.0, 3.0), False)])
def test_the_faster_kind_of_number_is_chosen(seconds: tuple[float, float], faster: bool) -> None:
    """The clock says how long a step in bfloat16 and one in float32 take."""
    made = losses()

    def clock() -> Iterator[float]:
        now = 0.0
        while True:
            yield now
            now += seconds[0] if made.in_bfloat16 else seconds[1]
            yield now

    ticks = clock()
    assert faster_in_bfloat16(made, batch(), lambda: next(ticks)) is faster
    assert all(parameter.grad is None for parameter in made.encoder.parameters())


def test_losses_are_numbers_where_no_label_is_present() -> None:
    one = batch()
    nothing = Crops(one.pixels, torch.zeros_like(one.present), torch.ones_like(one.present))
    assert all(torch.isfinite(loss) for loss in losses()(nothing).values())
