"""CVAT's XML: shapes of each kind against masks that are known."""

from pathlib import Path

import numpy as np
import pytest

from backend.dataset.formats.layouts import find_masks
from backend.dataset.mask_source import Limits, MaskSource
from backend.errors import DatasetError
from tests.backend.dataset.formats.published_sets import CAR, SIZE_HW, Writer


def read(folder: Path, *shapes: str) -> list[MaskSource]:
    image = f'<image id="0" name="a.jpg" width="60" height="40">{"".join(shapes)}</image>'
    Writer(folder).text("annotations.xml", f"<annotations>{image}</annotations>")
    return list(find_masks(folder).read(Limits(), None))


@pytest.mark.parametrize(
    "shape",
    [
        '<polygon label="car" points="10.0,5.0;30.0,5.0;30.0,20.0;10.0,20.0" z_order="0"/>',
        '<box label="car" xtl="10.0" ytl="5.0" xbr="30.0" ybr="20.0"/>',
        '<mask label="car" rle="0, 300" left="10" top="5" width="20" height="15"/>',
    ],
    ids=["polygon", "box", "mask"],
)
def test_a_shape_has_its_pixels(tmp_path: Path, shape: str) -> None:
    (source,) = read(tmp_path, shape, '<points label="dot" points="3.0,3.0"/>', "<tag label='x'/>")
    (region,) = source.read_regions(SIZE_HW)
    assert (source.size_hw, region.label) == (SIZE_HW, "car")
    np.testing.assert_array_equal(region.read_mask(), CAR)


def test_an_ellipse_is_turned_clockwise(tmp_path: Path) -> None:
    ellipse = '<ellipse label="car" cx="30" cy="20" rx="18" ry="3" rotation="45"/>'
    (source,) = read(tmp_path, ellipse)
    (region,) = source.read_regions(SIZE_HW)
    mask = region.read_mask()
    assert mask[30, 40], "to the right and below"
    assert not mask[10, 40]
    assert mask.sum() == pytest.approx(np.pi * 18 * 3, rel=0.05)


def test_a_mask_larger_than_its_picture_takes_no_memory(tmp_path: Path) -> None:
    size = 'left="0" top="0" width="1000000" height="1000000"'
    (source,) = read(tmp_path, f'<mask label="car" rle="1000000000000" {size}/>')
    (region,) = source.read_regions(SIZE_HW)
    with pytest.raises(DatasetError, match="larger than the picture"):
        region.read_mask()


def test_a_film_is_a_sentence(tmp_path: Path) -> None:
    Writer(tmp_path).text("a.xml", '<annotations><track id="0" label="car"/></annotations>')
    with pytest.raises(DatasetError, match="CVAT for images"):
        list(find_masks(tmp_path).read(Limits(), None))
