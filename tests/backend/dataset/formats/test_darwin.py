"""V7's files: paths inside of others, and the first version."""

from pathlib import Path
from typing import Any

import numpy as np

from backend.dataset.formats.layouts import find_masks
from backend.dataset.mask_source import Limits
from tests.backend.dataset.formats.published_sets import CAR, CORNERS, SIZE_HW, Writer

OUTER = [[10, 5], [40, 5], [40, 35], [10, 35]]
INNER = [[20, 10], [30, 10], [30, 20], [20, 20]]
RING = np.zeros(SIZE_HW, np.bool_)
RING[5:35, 10:40] = True
RING[10:20, 20:30] = False


def path(ring: list[list[int]]) -> list[dict[str, int]]:
    return [{"x": x, "y": y} for x, y in ring]


def read(folder: Path, file: dict[str, Any]) -> list[Any]:
    Writer(folder).json("a.json", file)
    (source,) = find_masks(folder).read(Limits(), None)
    assert source.name == "a.jpg"
    return [each.read_mask() for each in source.read_regions(SIZE_HW)]


def test_a_path_inside_of_another_is_a_hole(tmp_path: Path) -> None:
    polygon = {"paths": [path(OUTER), path(INNER)]}
    annotations = [{"name": "car", "polygon": polygon}, {"name": "dot", "keypoint": {}}]
    file = {"item": {"name": "a.jpg", "slots": []}, "annotations": annotations}
    (mask,) = read(tmp_path, file)
    np.testing.assert_array_equal(mask, RING)


def test_the_first_version_is_read(tmp_path: Path) -> None:
    image = {"filename": "a.jpg", "width": 60, "height": 40, "workview_url": "https://"}
    polygon = {"path": path(CORNERS), "additional_paths": []}
    file = {"image": image, "annotations": [{"name": "car", "polygon": polygon}]}
    (mask,) = read(tmp_path, file)
    np.testing.assert_array_equal(mask, CAR)
