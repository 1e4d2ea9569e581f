"""Training images from a folder, and the crops with their image-level labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clearclip_core import Label
from clearclip_core.demo.training_images import TrainingImages, crops, read_folder
from tests.core.demo.halves import make_folder

LABELS = Label("red"), Label("blue")


def test_a_folder_is_read_at_the_size_of_predictions(tmp_path: Path) -> None:
    data, names = make_folder(tmp_path, "train", size_hw=(56, 84))
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
