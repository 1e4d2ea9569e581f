"""Training a tiny CLIP on a folder of pictures with label maps: crops, losses and the way."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clearclip_core import Label, Segmenter
from examples.demo_model import training
from examples.demo_model.images import Crops, TrainingImages, crops, read_folder
from examples.demo_model.training import by_cell, found_loss, possible_loss, train_demo

LABELS = Label("red"), Label("blue")


def make_folder(root: Path, part: str) -> tuple[Path, Path]:
    """Write pictures of two halves, label maps and the file of names; return folder and that file.

    Value 1 is the sky, reddish and above; value 2 the pavement, bluish and below; the tenth of the
    columns on the right has value 0, which is no label.
    """
    height, width = 56, 84
    rng = np.random.default_rng(0)
    for number in range(2):
        image = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
        image[: height // 2, :, 0] += 150
        image[height // 2 :, :, 2] += 150
        values = np.ones((height, width), np.uint8)
        values[height // 2 :] = 2
        values[:, width - width // 10 :] = 0
        for kind, array in (("images", image), ("masks", values)):
            path = root / kind / part / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    names = root / "names.txt"
    names.write_text("-\nsky\npavement, sidewalk\n", encoding="utf-8")
    return root, names


def test_a_folder_is_read_at_the_size_of_predictions(tmp_path: Path) -> None:
    data, names = make_folder(tmp_path, "train")
    made = read_folder(data, names, "train")
    assert [label.name for label in made.labels] == ["sky", "pavement"]
    assert made.labels[1].prompts == ("pavement", "sidewalk")
    assert [image.shape for image in made.images] == [(448, 672, 3)] * 2
    assert [labels.shape for labels in made.coarse_labels] == [(112, 168)] * 2
    first = made.coarse_labels[0]
    # Value 1 (sky) above, value 2 (pavement) below, and a tenth on the right is not counted.
    assert (first[:56, :150] == 0).all()
    assert (first[56:, :150] == 1).all()
    assert (first[:, 153:] == 254).all()


def test_crops_say_which_labels_they_show() -> None:
    """A crop shows a label where it has its colour."""
    source = halves(upper=True, photographs=False)
    made = crops(source, 64, 60, (0.9, 1.1), np.random.default_rng(0))
    assert made.pixels.shape == (60, 3, 64, 64)
    red = (made.pixels[:, 0] > made.pixels[:, 2]).float().mean((1, 2))
    clear = (red < 0.001) | ((red > 0.05) & (red < 0.95)) | (red > 0.999)
    assert clear.sum() > 40
    assert (made.present[clear, 0] == (red[clear] > 0.05)).all()
    assert (made.present[clear, 1] == (red[clear] < 0.95)).all()
    assert (made.absent[clear] == ~made.present[clear]).all()


def halves(upper: bool, photographs: bool) -> TrainingImages:
    """A picture whose upper or left half is red and whose other half is blue."""
    image = np.zeros((448, 448, 3), np.uint8)
    labels = np.zeros((112, 112), np.uint8)
    image[:224, :, 0] = image[224:, :, 2] = 255
    labels[56:] = 1
    if not upper:
        image, labels = image.transpose(1, 0, 2).copy(), labels.T.copy()
    return TrainingImages(LABELS, [image], [labels], np.ones(2), photographs)


def test_cells_say_which_labels_they_show() -> None:
    """Both halves of a crop of all of the picture are cells."""
    source = halves(upper=True, photographs=True)
    made = crops(source, 128, 3, (448 / 128, 448 / 128), np.random.default_rng(0))
    assert made.present.tolist() == [[True, True, False]] * 3  # the last is no label
    red, blue = [True, False, False], [False, True, False]
    assert made.cell_present.tolist() == [[red, red, blue, blue]] * 3
    assert (made.cell_absent == ~made.cell_present).all()


def test_cells_are_mirrored_with_their_crop() -> None:
    source = halves(upper=False, photographs=True)
    made = crops(source, 128, 20, (448 / 128, 448 / 128), np.random.default_rng(0))
    left = made.pixels[:, 0, :, :60].mean((1, 2)) > made.pixels[:, 2, :, :60].mean((1, 2))
    assert 0 < left.sum() < 20
    assert (made.cell_present[:, 0, 0] == left).all()
    assert (made.cell_present[:, 1, 0] == ~left).all()


def test_wrong_data_end_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_demo(["--data", str(tmp_path)])
    assert "--data and --names belong together" in capsys.readouterr().err
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
def test_a_model_is_trained_on_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_TEXT_STEPS", 2)  # the words are not what is tested
    data, names = make_folder(tmp_path, "")
    arguments = ["--data", str(data), "--names", str(names), "--minutes", "0.02"]
    train_demo([*arguments, "--out", str(tmp_path / "made")])
    segmenter = Segmenter.load(f"local-dir:{tmp_path / 'made'}", device="cpu")
    labels = segmenter.segment(np.zeros((64, 80, 3), np.uint8), ["sky", "pavement"]).label_map
    assert labels.shape == (64, 80)
    assert torch.isfinite(segmenter.embed(["sky", "sidewalk", "xylophone"])).all()
