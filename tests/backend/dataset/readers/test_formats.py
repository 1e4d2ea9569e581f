"""The format of a folder, from what lies in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.dataset.mask_source import Limits
from backend.dataset.readers.formats import detect_format, read_masks
from backend.errors import DatasetError


def make(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.png", "names.txt"], "index-png"),
        (["deep/a.png", "classes.json"], "index-png"),
        (["masks/a.png", "images/a.png", "classes.json"], "index-png"),
        (["masks/a.png", "report.json", "splits/train.txt", "classes.json"], "index-png"),
        (["a.png", "train.txt", "info.json", "names.txt"], "index-png"),
        (["a.png"], "index-png"),
        (["instances.json", "images/a.png"], "coco"),
        (["annotations/train.json", "a.png"], "coco"),
        (["annotations/train.json", "report.json", "classes.json", "images/a.png"], "coco"),
        (["labels/train/a.txt", "images/train/a.png", "data.yaml"], "yolo"),
        (["a.txt", "classes.txt", "a.png"], "yolo"),
    ],
)
def test_the_format_is_found(tmp_path: Path, files: list[str], expected: str) -> None:
    assert detect_format(make(tmp_path, *files)) == expected


def test_several_formats_are_not_chosen_from(tmp_path: Path) -> None:
    make(tmp_path, "masks/a.png", "annotations/train.json", "labels/a.txt", "data.yaml")
    with pytest.raises(DatasetError, match="index-png, coco, yolo: say which by --format"):
        detect_format(tmp_path)
    with pytest.raises(DatasetError, match="COCO file"):
        next(read_masks(tmp_path, "coco", None, Limits()))
    with pytest.raises(DatasetError, match=r"Expected classes\.json or names\.txt in"):
        next(read_masks(tmp_path, "index-png", None, Limits()))
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(DatasetError, match=r'data\.yaml with "names", classes\.json or names'):
        next(read_masks(tmp_path, "yolo", None, Limits()))


@pytest.mark.parametrize(
    ("file", "advice"), [("set.zip", "unpack it first"), ("a.png", "name its folder")]
)
def test_a_file_that_is_no_data_set_says_what_to_name(
    tmp_path: Path, file: str, advice: str
) -> None:
    make(tmp_path, file)
    with pytest.raises(DatasetError, match=advice):
        detect_format(tmp_path / file)
