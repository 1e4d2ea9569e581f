"""VIA's files: shapes of each kind, and what says the class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from backend.dataset.formats.layouts import find_masks
from backend.dataset.mask_source import Limits, MaskSource
from tests.backend.dataset.formats.published_sets import CAR, SIZE_HW, Writer, via

LIMITS = Limits()


def sources(folder: Path) -> list[MaskSource]:
    return list(find_masks(folder).read(LIMITS, None))


@pytest.mark.parametrize("kind", ["circle", "ellipse", "rect"])
def test_shapes_of_via_have_their_pixels(tmp_path: Path, kind: str) -> None:
    """Against Pillow's drawing, but for the pixels of the edge."""
    shapes = {
        "circle": {"name": "circle", "cx": 30, "cy": 20, "r": 12},
        "ellipse": {"name": "ellipse", "cx": 30, "cy": 20, "rx": 20, "ry": 10},
        "rect": {"name": "rect", "x": 10, "y": 5, "width": 20, "height": 15},
    }
    boxes = {"circle": (18, 8, 42, 32), "ellipse": (10, 10, 50, 30), "rect": (10, 5, 29, 19)}
    expected = Image.new("1", SIZE_HW[::-1])
    drawing = ImageDraw.Draw(expected)
    (drawing.rectangle if kind == "rect" else drawing.ellipse)(boxes[kind], 1)
    region = {"shape_attributes": shapes[kind], "region_attributes": {"kind": {"car": True}}}
    row = {"filename": "a.jpg", "size": -1, "regions": [region], "file_attributes": {}}
    Writer(tmp_path).json("via.json", {"_via_settings": {}, "_via_img_metadata": {"a.jpg-1": row}})
    (source,) = sources(tmp_path)
    (found,) = source.read_regions(SIZE_HW)
    assert found.label == "car"
    wrong = found.read_mask() != np.asarray(expected)
    assert wrong.mean() < 0.03


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"class": "car", "colour": "red"}, "car"),
        ({"colour": "red", "type": "car"}, "car"),
        ({"anything": "car"}, "car"),
        ({"type": {"tree": False, "car": True}}, "car"),
        ({}, "object"),
        ({"class": " "}, "object"),
    ],
)
def test_the_class_is_an_attribute(tmp_path: Path, attributes: dict[str, Any], name: str) -> None:
    shape = {"name": "rect", "x": 1, "y": 1, "width": 5, "height": 5}
    region = {"shape_attributes": shape, "region_attributes": attributes}
    row = {"filename": "a.jpg", "size": 1, "regions": [region]}
    Writer(tmp_path).json("via.json", {"a.jpg1": row})
    (source,) = sources(tmp_path)
    assert [each.label for each in source.read_regions(SIZE_HW)] == [name]


def test_regions_of_the_first_version_are_numbered(tmp_path: Path) -> None:
    via(Writer(tmp_path))
    file = tmp_path / "via_region_data.json"
    file.write_text(
        file.read_text().replace('"regions": [{', '"regions": {"0": {').replace("}}],", "}}},")
    )
    (source,) = sources(tmp_path)
    (region,) = source.read_regions(SIZE_HW)
    np.testing.assert_array_equal(region.read_mask(), CAR)
