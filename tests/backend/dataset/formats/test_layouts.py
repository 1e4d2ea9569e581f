"""Published layouts as tiny folders: each is named and read to the pixel, or told in a sentence."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from backend.dataset.formats.layout import SetFolder
from backend.dataset.formats.layouts import find_masks
from backend.dataset.mask_preview import PictureFinder, preview_masks
from backend.dataset.mask_source import Limits, MaskSource
from backend.errors import DatasetError
from tests.backend.dataset.formats import published_sets
from tests.backend.dataset.formats.published_sets import CAR, READ, SIZE_HW, TOLD, Writer

LIMITS = Limits()
EACH = pytest.mark.parametrize(
    ("layout", "build", "car", "picture"), READ, ids=[build.__name__ for _, build, _, _ in READ]
)


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


@EACH
def test_the_picture_of_masks_is_found(
    tmp_path: Path, layout: str, build: Callable[[Writer], None], car: str, picture: str
) -> None:
    build(Writer(tmp_path))
    (source,) = sources(tmp_path)
    folder = SetFolder(tmp_path)
    finder = PictureFinder(folder, find_masks(tmp_path).image_folders)
    assert finder.find(source) == tmp_path / picture


@pytest.mark.parametrize(("files", "sentence"), TOLD, ids=[told[:30] for _, told in TOLD])
def test_what_is_not_read_is_told_in_a_sentence(
    tmp_path: Path, files: dict[str, Any], sentence: str
) -> None:
    to = Writer(tmp_path)
    for name, content in files.items():
        to.text(name, content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DatasetError, match=f"looks like {sentence}"):
        find_masks(tmp_path)


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


def test_a_preview_shows_three_pictures_and_counts_all(tmp_path: Path) -> None:
    to = Writer(tmp_path / "set")
    to.json("classes.json", ["car", "road"])
    for number in range(5):
        to.values(f"masks/{number}.png", 0, 1)
        to.picture(f"images/{number}.jpg")
    found = find_masks(tmp_path / "set")
    preview = preview_masks(found, SetFolder(tmp_path / "set"), LIMITS, None, tmp_path)
    assert (preview.files, preview.pictures, preview.problems) == (5, 5, [])
    assert {name: each.pictures for name, each in preview.classes.items()} == {"car": 5, "road": 5}
    assert preview.classes["car"].pixels == 5 * CAR.sum()
    assert len(preview.overlays) == 3
    with Image.open(preview.overlays[0]) as shown:
        levels = np.asarray(shown).astype(int)
    inside, outside = levels[8:18, 12:28].mean((0, 1)), levels[25:38, 35:55].mean((0, 1))
    assert abs(inside - outside).max() > 20, "each class has a colour of its own"


def test_a_preview_says_which_masks_do_not_fit(tmp_path: Path) -> None:
    to = Writer(tmp_path / "set")
    published_sets.own(to)
    Image.new("RGB", (30, 20)).save(tmp_path / "set/images/a.jpg")
    found = find_masks(tmp_path / "set")
    preview = preview_masks(found, SetFolder(tmp_path / "set"), LIMITS, None, tmp_path)
    assert preview.problems == ["a.png is 60×40 px, but its picture 30×20 px."]
    assert preview.overlays == []


def test_masks_without_their_pictures_are_counted(tmp_path: Path) -> None:
    to = Writer(tmp_path / "set")
    published_sets.own(to)
    (tmp_path / "set/images/a.jpg").unlink()
    found = find_masks(tmp_path / "set")
    preview = preview_masks(found, SetFolder(tmp_path / "set"), LIMITS, None, tmp_path)
    assert (preview.files, preview.pictures, list(preview.classes)) == (1, 0, ["car"])
    assert "the pictures are not there" in preview.describe(Path("set"), "import-masks")


def test_a_mask_larger_than_its_picture_takes_no_memory(tmp_path: Path) -> None:
    mask = (
        '<mask label="car" rle="1000000000000" left="0" top="0" width="1000000" height="1000000"/>'
    )
    image = '<image id="0" name="a.jpg" width="60" height="40">'
    Writer(tmp_path).text("a.xml", f"<annotations>{image}{mask}</image></annotations>")
    (source,) = sources(tmp_path)
    (region,) = source.read_regions(SIZE_HW)
    with pytest.raises(DatasetError, match="larger than the picture"):
        region.read_mask()


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


def test_holes_of_supervisely_and_darwin_are_no_part(tmp_path: Path) -> None:
    outer = [[10, 5], [40, 5], [40, 35], [10, 35]]
    inner = [[20, 10], [30, 10], [30, 20], [20, 20]]
    expected = np.zeros(SIZE_HW, np.bool_)
    expected[5:35, 10:40] = True
    expected[10:20, 20:30] = False
    points = {"exterior": outer, "interior": [inner]}
    thing = {"classTitle": "car", "geometryType": "polygon", "points": points}
    size = {"height": 40, "width": 60}
    to = Writer(tmp_path)
    to.json("super/ds/ann/a.jpg.json", {"tags": [], "size": size, "objects": [thing]})
    paths = [[{"x": x, "y": y} for x, y in ring] for ring in (outer, inner)]
    to.json(
        "darwin/a.json",
        {
            "item": {"name": "a.jpg", "slots": []},
            "annotations": [{"name": "car", "polygon": {"paths": paths}}],
        },
    )
    for name in ("super", "darwin"):
        (source,) = sources(tmp_path / name)
        (region,) = source.read_regions(SIZE_HW)
        np.testing.assert_array_equal(region.read_mask(), expected)


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


def test_a_panoptic_file_reads_no_map_outside_of_its_folder(tmp_path: Path) -> None:
    to = Writer(tmp_path)
    published_sets.coco_panoptic(to)
    file = tmp_path / "annotations/panoptic_val2017.json"
    to.colours("secret.png", (1, 2, 3))
    file.write_text(file.read_text().replace('"a.png"', '"../../secret.png"'))
    (source,) = sources(tmp_path)
    with pytest.raises(DatasetError, match="lies outside of its folder"):
        list(source.read_regions(SIZE_HW))
