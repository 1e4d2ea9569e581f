"""Datumaro's own format: shapes of each kind, and parts of one thing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.dataset.formats.layouts import find_masks
from backend.dataset.mask_source import Limits, MaskSource
from backend.errors import DatasetError
from tests.backend.dataset.formats.published_sets import CAR, FLAT, SIZE_HW, Writer


def read(folder: Path, *annotations: dict[str, Any]) -> MaskSource:
    item = {"id": "a", "annotations": annotations, "image": {"path": "a.jpg"}}
    labels = {"labels": [{"name": "car"}, {"name": "tree"}]}
    file = {"dm_format_version": "1.0", "categories": {"label": labels}, "items": [item]}
    Writer(folder).json("annotations/default.json", file)
    (source,) = find_masks(folder).read(Limits(), None)
    return source


@pytest.mark.parametrize(
    "shape",
    [{"type": "polygon", "points": FLAT}, {"type": "bbox", "bbox": [10, 5, 20, 15]}],
    ids=["polygon", "box"],
)
def test_a_shape_has_its_pixels(tmp_path: Path, shape: dict[str, Any]) -> None:
    source = read(tmp_path, shape | {"label_id": 0}, {"type": "label", "label_id": 1})
    (region,) = source.read_regions(SIZE_HW)
    np.testing.assert_array_equal(region.read_mask(), CAR)


def test_shapes_of_one_group_are_one_thing(tmp_path: Path) -> None:
    boxes = [[10, 5, 10, 15], [20, 5, 10, 15], [40, 30, 5, 5], [50, 30, 5, 5]]
    groups = [3, 3, 0, 0]
    shapes = [
        {"type": "bbox", "label_id": 0, "bbox": box, "group": group}
        for box, group in zip(boxes, groups, strict=True)
    ]
    first, *others = read(tmp_path, *shapes).read_regions(SIZE_HW)
    np.testing.assert_array_equal(first.read_mask(), CAR)
    assert [int(each.read_mask().sum()) for each in others] == [25, 25]


@pytest.mark.parametrize("label", [None, 2, -1])
def test_a_class_that_the_file_lacks_is_a_sentence(tmp_path: Path, label: int | None) -> None:
    source = read(tmp_path, {"type": "polygon", "points": FLAT, "label_id": label})
    with pytest.raises(DatasetError, match="annotation 1 has no class of the file"):
        list(source.read_regions(SIZE_HW))
