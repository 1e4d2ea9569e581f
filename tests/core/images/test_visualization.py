"""Palettes, label map files and overlays, read back with Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip_core import label_map_image, overlay, palette


def test_colours_are_all_different() -> None:
    colours = palette(255)
    assert colours.shape == (255, 3)
    assert colours.dtype == np.uint8
    assert len({tuple(colour) for colour in colours.tolist()}) == 255
    assert palette(0).shape == (0, 3)


def test_a_label_map_file_holds_indices_and_255_for_none(tmp_path: Path) -> None:
    labels = np.array([[0, 1, -1], [2, -1, 0]], np.int16)
    label_map_image(labels, 3).save(tmp_path / "map.png", optimize=True)
    with Image.open(tmp_path / "map.png") as read:
        assert read.mode == "P"
        assert np.asarray(read).tolist() == [[0, 1, 255], [2, 255, 0]]
        seen = np.asarray(read.convert("RGB"))
    colours = palette(3)
    assert seen[0, :2].tolist() == colours[:2].tolist()
    assert seen[1, 0].tolist() == colours[2].tolist()
    assert seen[0, 2].tolist() == [0, 0, 0]


def test_a_label_map_holds_255_labels_and_no_more() -> None:
    assert np.asarray(label_map_image(np.array([[254, -1]]), 255)).tolist() == [[254, 255]]
    with pytest.raises(ValueError, match="at most 255 labels, but got 256"):
        label_map_image(np.zeros((1, 1), int), 256)


def test_an_overlay_mixes_colours_where_there_is_a_label() -> None:
    rgb = np.full((200, 300, 3), 100, np.uint8)
    labels = np.full((200, 300), -1)
    labels[:, :150] = 1
    picture = np.asarray(overlay(rgb, labels, ["sky", "tree"], opacity=0.25))
    mixed = [round(0.25 * channel + 75) for channel in palette(2)[1].tolist()]
    assert np.abs(picture[:, :150].astype(int) - mixed).max() <= 1
    assert (picture[:, 150:300] == 100).all()
    assert (rgb == 100).all()


def has_colour(picture: np.ndarray, index: int) -> bool:
    return bool((picture == palette(index + 1)[index]).all(axis=-1).any())


def test_the_legend_shows_the_labels_that_are_there() -> None:
    rgb = np.full((120, 160, 3), 255, np.uint8)
    labels = np.zeros((120, 160), int)
    labels[:60] = 2
    picture = np.asarray(overlay(rgb, labels, ["sky", "tree", "horse"]))
    assert picture.shape[0] == 120
    legend = picture[:, 160:]
    assert legend.shape[1] > 60
    assert [has_colour(legend, i) for i in range(3)] == [True, False, True]
    longer = overlay(rgb, labels, ["sky", "tree", "horse on a far and foggy hill"])
    assert longer.width > picture.shape[1]
