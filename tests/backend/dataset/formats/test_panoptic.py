"""COCO's panoptic masks: what a file may not say."""

from pathlib import Path

import pytest

from backend.dataset.formats.layouts import find_masks
from backend.dataset.mask_source import Limits, MaskSource
from backend.errors import DatasetError
from tests.backend.dataset.formats.published_sets import SIZE_HW, Writer, coco_panoptic

LIMITS = Limits()


def sources(folder: Path) -> list[MaskSource]:
    return list(find_masks(folder).read(LIMITS, None))


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "annotations/panoptic_val2017.json"
    file.write_text(file.read_text().replace(old, new))


def test_a_panoptic_file_reads_no_map_outside_of_its_folder(tmp_path: Path) -> None:
    to = Writer(tmp_path)
    coco_panoptic(to)
    to.colours("secret.png", (1, 2, 3))
    change(tmp_path, '"a.png"', '"../../secret.png"')
    (source,) = sources(tmp_path)
    with pytest.raises(DatasetError, match="lies outside of its folder"):
        list(source.read_regions(SIZE_HW))


def test_a_class_without_a_name_is_a_sentence(tmp_path: Path) -> None:
    coco_panoptic(Writer(tmp_path))
    change(tmp_path, '"category_id": 3', '"category_id": 4')
    (source,) = sources(tmp_path)
    with pytest.raises(DatasetError, match="has the class 4, which has no name"):
        list(source.read_regions(SIZE_HW))


def test_a_grey_map_is_a_sentence(tmp_path: Path) -> None:
    to = Writer(tmp_path)
    coco_panoptic(to)
    to.values("annotations/panoptic_val2017/a.png", 1, 0)
    (source,) = sources(tmp_path)
    with pytest.raises(DatasetError, match="is grey, but expected the colours of segments"):
        list(source.read_regions(SIZE_HW))
