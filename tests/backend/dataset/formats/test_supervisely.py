"""Supervisely's files: holes, boxes and bitmaps with transparency."""

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.dataset.formats.layouts import find_masks
from backend.dataset.mask_source import Limits
from backend.errors import DatasetError
from tests.backend.dataset.drawn_tasks import saved
from tests.backend.dataset.formats.published_sets import SIZE_HW, Writer

OUTER = [[10, 5], [40, 5], [40, 35], [10, 35]]
INNER = [[20, 10], [30, 10], [30, 20], [20, 20]]
RING = np.zeros(SIZE_HW, np.bool_)
RING[5:35, 10:40] = True
RING[10:20, 20:30] = False


def read(folder: Path, **thing: Any) -> Any:
    """Write one object, and return its mask."""
    size = {"height": 40, "width": 60}
    found = {"tags": [], "size": size, "objects": [{"classTitle": "car"} | thing]}
    Writer(folder).json("ds/ann/a.jpg.json", found)
    (source,) = find_masks(folder).read(Limits(), None)
    (region,) = source.read_regions(SIZE_HW)
    return region.read_mask()


def test_holes_are_no_part(tmp_path: Path) -> None:
    points = {"exterior": OUTER, "interior": [INNER]}
    mask = read(tmp_path, geometryType="polygon", points=points)
    np.testing.assert_array_equal(mask, RING)


def test_a_rectangle_is_filled(tmp_path: Path) -> None:
    points = {"exterior": [[10, 5], [30, 20]], "interior": []}
    mask = read(tmp_path, geometryType="rectangle", points=points)
    assert mask.sum() == 20 * 15
    assert mask[5:20, 10:30].all()


def test_transparency_says_the_pixels_of_a_bitmap(tmp_path: Path) -> None:
    rgba = np.full((4, 6, 4), 255, np.uint8)
    rgba[:2, :, 3] = 0
    data = base64.b64encode(zlib.compress(saved(Image.fromarray(rgba)))).decode()
    mask = read(tmp_path, geometryType="bitmap", bitmap={"data": data, "origin": [10, 5]})
    expected = np.zeros(SIZE_HW, np.bool_)
    expected[7:9, 10:16] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_line_has_no_pixel(tmp_path: Path) -> None:
    points = {"exterior": [[10, 5], [30, 20]], "interior": []}
    assert not read(tmp_path, geometryType="line", points=points).any()


def test_a_bitmap_beyond_the_picture_is_a_sentence(tmp_path: Path) -> None:
    part = saved(Image.fromarray(np.full((4, 6), 255, np.uint8)))
    bitmap = {"data": base64.b64encode(zlib.compress(part)).decode(), "origin": [58, 5]}
    with pytest.raises(DatasetError, match="object 1 is broken, its mask lies beyond"):
        read(tmp_path, geometryType="bitmap", bitmap=bitmap)
