"""Published layouts as tiny folders: each is named and read to the pixel, or told in a sentence."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backend.dataset.formats.layouts import find_masks
from backend.dataset.mask_source import Limits, MaskSource
from backend.errors import DatasetError
from tests.backend.dataset.formats import published_sets
from tests.backend.dataset.formats.published_sets import CAR, EACH, SIZE_HW, Writer

LIMITS = Limits()


def sources(folder: Path) -> list[MaskSource]:
    return list(find_masks(folder).read(LIMITS, None))


@EACH
def test_a_published_layout_is_read_to_the_pixel(
    tmp_path: Path, layout: str, build: Callable[[Writer], None], car: str, picture: str
) -> None:
    build(Writer(tmp_path))
    assert find_masks(tmp_path).layout == layout
    (source,) = sources(tmp_path)
    regions = list(source.read_regions(SIZE_HW))
    assert [each.label for each in regions] == [car]
    np.testing.assert_array_equal(regions[0].read_mask(), CAR)


def test_masks_of_one_thing_ask_for_its_name(tmp_path: Path) -> None:
    """The file that is asked for is one that is read."""
    to = Writer(tmp_path)
    to.values("masks/a.png", 255, 0)
    to.picture("images/a.png")
    with pytest.raises(DatasetError, match="masks of one thing, 0 and 255") as told:
        sources(tmp_path)
    (asked,) = re.findall(r"classes\.json there, (.*?\})\. ", str(told.value))
    to.text("classes.json", asked)
    (source,) = sources(tmp_path)
    (region,) = source.read_regions(SIZE_HW)
    assert region.label == "NAME"
    np.testing.assert_array_equal(region.read_mask(), CAR)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (published_sets.cvat_xml, "annotations.xml"),
        (published_sets.via, "via_region_data.json"),
        (published_sets.datumaro, "annotations/default.json"),
        (published_sets.coco_panoptic, "annotations/panoptic_val2017.json"),
    ],
)
def test_a_file_may_be_named_in_place_of_its_folder(
    tmp_path: Path, build: Callable[[Writer], None], name: str
) -> None:
    build(Writer(tmp_path))
    (source,) = sources(tmp_path / name)
    (region,) = source.read_regions(SIZE_HW)
    np.testing.assert_array_equal(region.read_mask(), CAR)


@pytest.mark.parametrize("name", ["a.json", "ann/a.jpg.json", "annotations.xml"])
@pytest.mark.parametrize(
    "text",
    [
        '{"objects": 3, "tags": []}',
        '{"a": {"shape_attributes": 1}}',
        '{"dm_format_version": "1.0", "items": [{}]}',
        '{"annotations": [{}], "item": {"slots": []}}',
        "<annotations><image/></annotations>",
        '<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>',
    ],
)
def test_a_broken_file_is_a_sentence(tmp_path: Path, name: str, text: str) -> None:
    Writer(tmp_path).text(name, text)
    with pytest.raises(DatasetError):
        [list(each.read_regions(SIZE_HW)) for each in sources(tmp_path)]
