"""Folders of label maps: which files are taken, and by which names."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.dataset.mask_source import Limits
from backend.dataset.readers.label_map import read_binary_masks, read_index_png
from backend.errors import DatasetError

LIMITS = Limits(max_file_mb=1, max_megapixels=1)


def put(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 3), value, np.uint8)).save(path)


def test_names_are_paths_without_suffix_in_composed_letters(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("sky\nroad\n")
    put(tmp_path / "val" / (unicodedata.normalize("NFD", "bär") + ".png"))
    put(tmp_path / "a.v2.PNG")
    put(tmp_path / "._a.png")
    sources = list(read_index_png(tmp_path, None, LIMITS))
    assert [source.name for source in sources] == ["a.v2", "val/bär"]
    (region,) = sources[0].read_regions((2, 3))
    assert region.label == "sky"


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("sky\n")
    (tmp_path / "a.png").write_bytes(b"\0" * ((1 << 20) + 1))
    (source,) = read_index_png(tmp_path, None, LIMITS)
    with pytest.raises(DatasetError, match="limit of 1 MB"):
        source.read_regions((2, 3))
    (tmp_path / "a.png").unlink()
    with pytest.raises(DatasetError, match="cannot be read: No such file"):
        source.read_regions((2, 3))


VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0]  # of the devkit: background, aeroplane, bicycle


@pytest.mark.parametrize("in_colour", [False, True])
def test_the_masks_of_pascal_voc(tmp_path: Path, in_colour: bool) -> None:
    values = np.array([[0, 1, 2], [255, 2, 2]], np.uint8)
    picture = Image.fromarray(values)
    palette = np.zeros((256, 3), np.uint8)
    palette[:3], palette[255] = np.reshape(VOC, (3, 3)), (224, 224, 192)
    picture.putpalette(palette.ravel().tolist())
    for name in ("SegmentationClass/2007_1.png", "SegmentationObject/2007_1.png"):
        (tmp_path / name).parent.mkdir()
        (picture.convert("RGB") if in_colour else picture).save(tmp_path / name)
    (source,) = read_index_png(tmp_path, None, LIMITS)
    plane, bicycle = source.read_regions((2, 3))
    assert (source.name, plane.label, bicycle.label) == ("2007_1", "aeroplane", "bicycle")
    np.testing.assert_array_equal(plane.read_mask(), values == 1)
    np.testing.assert_array_equal(bicycle.read_mask(), values == 2)


def test_colours_stand_for_the_classes_of_a_file(tmp_path: Path) -> None:
    """A file of CVAT, which puts its own into the folder."""
    rgb = np.array([[(0, 0, 0), (128, 64, 128), (1, 2, 3)]], np.uint8)
    (tmp_path / "masks").mkdir()
    Image.fromarray(rgb).save(tmp_path / "masks/a.png")
    file = tmp_path / "labelmap.txt"
    file.write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\n")
    (source,) = read_index_png(tmp_path, None, LIMITS)
    with pytest.raises(DatasetError, match=r"colour 1, 2, 3, which .*labelmap.txt does not name"):
        source.read_regions((1, 3))
    file.rename(tmp_path / "mine.txt")
    (tmp_path / "mine.txt").write_text("road: 128, 64, 128\nold kerb: 1,2,3\nbackground: 0,0,0")
    (source,) = read_index_png(tmp_path, None, LIMITS, colours=tmp_path / "mine.txt")
    found = {each.label: each.read_mask().tolist() for each in source.read_regions((1, 3))}
    assert found == {"road": [[False, True, False]], "old kerb": [[False, False, True]]}


def test_suffixes_of_masks_and_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("sky\n")
    for end in ("labelIds", "instanceIds", "color"):
        put(tmp_path / f"gtFine/ulm/ulm_0_gtFine_{end}.png")
    suffix = "_gtFine_labelIds=_leftImg8bit"
    (source,) = read_index_png(tmp_path, None, LIMITS, suffix=suffix)
    assert source.name == "gtFine/ulm/ulm_0_leftImg8bit"
    (source,) = read_index_png(tmp_path, None, LIMITS, suffix="_gtFine_labelIds")
    assert source.name == "gtFine/ulm/ulm_0"


def test_a_folder_of_binary_masks_a_class(tmp_path: Path) -> None:
    mask = np.array([[0, 255, 0]], np.uint8)
    for name, found in (("sky/a", mask), ("car/a", mask // 255), ("car/b", mask * 0)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(found).save(tmp_path / f"{name}.png")
    a, b = read_binary_masks(tmp_path, LIMITS)
    assert {each.label: each.read_mask().tolist() for each in a.read_regions((1, 3))} == {
        "car": [[False, True, False]],
        "sky": [[False, True, False]],
    }
    assert (a.name, b.name, list(b.read_regions((1, 3)))) == ("a", "b", [])
    Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(tmp_path / "car/a.png")
    with pytest.raises(DatasetError, match=r"car/a\.png is no mask of one class"):
        a.read_regions((1, 3))


def test_a_link_out_of_the_folder_is_no_mask(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/names.txt").write_text("sky\n")
    put(tmp_path / "secret.png")
    put(tmp_path / "set/a.png")
    (tmp_path / "set/b.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "set/c.png").symlink_to("a.png")
    assert [each.name for each in read_index_png(tmp_path / "set", None, LIMITS)] == ["a", "c"]
