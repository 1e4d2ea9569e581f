"""Label maps: which images they belong to, and what their values mean."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip_core.images.label_maps import LayoutError, class_indices, pair_files


def save(path: Path, mode: str = "L", size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


def test_pictures_and_label_maps_of_one_path_are_pairs(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    save(images / "b.jpg", "RGB")
    save(images / "day" / "a.png", "RGB")
    save(images / "without.jpg", "RGB")
    save(images / "._b.jpg", "RGB")
    save(masks / "b.png")
    save(masks / "day" / "a.png")
    pairs = pair_files(images, masks)
    assert [pair.name for pair in pairs] == ["b", "day/a"]
    assert pairs[1].picture == images / "day" / "a.png"
    assert pairs[1].label_map == masks / "day" / "a.png"
    for picture, label_map in (("x/a.jpg", "x/a.png"), ("y/a.jpg", "y/masks/a.png")):
        save(tmp_path / picture, "RGB")  # beside their pictures, or in a folder below
        folder = save(tmp_path / label_map).parent
        (pair,) = pair_files((tmp_path / picture).parent, folder)
        assert (pair.picture, pair.label_map) == (tmp_path / picture, tmp_path / label_map)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    with pytest.raises(LayoutError, match=r"Expected a folder at .*images, but there is none"):
        pair_files(images, masks)
    images.mkdir()
    masks.mkdir()
    with pytest.raises(LayoutError, match=r"Expected label maps at .*masks.*, but there are none"):
        pair_files(images, masks)
    save(masks / "a.png")
    with pytest.raises(LayoutError, match="there is none for 1 of 1: a"):
        pair_files(images, masks)
    save(images / "a.jpg", "RGB")
    save(images / "a.png", "RGB")
    with pytest.raises(LayoutError, match=r"one file of each name in .*images: a has more"):
        pair_files(images, masks)


def test_a_label_map_of_another_size_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.jpg", "RGB", (6, 4))
    save(tmp_path / "masks" / "a.png", "L", (4, 6))
    (pair,) = pair_files(tmp_path / "images", tmp_path / "masks")
    with pytest.raises(LayoutError, match="as large as its picture, 6×4 px, but it has 4×6"):
        pair.read([0])


def test_values_become_indices_of_the_classes_that_count() -> None:
    values = np.array([[0, 1, 2], [3, 255, 0]], np.uint8)
    indices = class_indices(values, [0, None, 1, -1])
    assert indices.tolist() == [[0, 255, 1], [254, 255, 0]]
    assert indices.dtype == np.uint8
