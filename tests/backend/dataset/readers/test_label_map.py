"""Label maps of every depth against the values that were drawn; folders and names of classes."""

from __future__ import annotations

import io
import json
import struct
import unicodedata
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from backend.dataset.labelled_image import ClassTable
from backend.dataset.mask_source import Limits
from backend.dataset.readers.label_map import (
    LabelValues,
    read_binary_masks,
    read_class_map,
    read_index_png,
)
from backend.errors import DatasetError

LIMITS = Limits(max_file_mb=1, max_megapixels=1)
VALUES = np.array([[0, 1, 1, 0], [1, 1, 0, 0]], np.uint8)
NAMES = LabelValues({0: "sky", 1: "road", 255: None}, {0: (10, 20, 30), 1: (40, 50, 60)}, "names")


def png(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def with_palette(values: npt.NDArray[np.uint8], *colours: tuple[int, int, int]) -> Image.Image:
    picture = Image.fromarray(values, "P")
    picture.putpalette([each for colour in colours for each in colour])
    return picture


def raw_png(values: npt.NDArray[np.uint8], bits: int) -> bytes:
    """A grey PNG of few bits, which Pillow cannot write: packed by hand, after the PNG standard."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = values.shape
    rows = b""
    for row in values:
        digits = "".join(format(int(value), f"0{bits}b") for value in row).ljust(8, "0")
        rows += b"\0" + bytes(int(digits[at : at + 8], 2) for at in range(0, len(digits), 8))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return signature + data


@pytest.mark.parametrize(
    "content",
    [
        png(Image.fromarray(VALUES)),
        png(with_palette(VALUES, (10, 20, 30), (40, 50, 60)), bits=2),
        png(Image.fromarray(VALUES.astype(np.uint16))),
        raw_png(VALUES, 1),
        raw_png(VALUES, 4),
    ],
)
def test_the_values_are_those_that_the_file_has(content: bytes) -> None:
    found = read_class_map(content, "a.png", LIMITS)
    np.testing.assert_array_equal(found.values, VALUES)
    regions = found.regions(NAMES, (2, 4))
    assert [region.label for region in regions] == ["sky", "road"]
    np.testing.assert_array_equal(regions[0].read_mask(), VALUES == 0)
    np.testing.assert_array_equal(regions[1].read_mask(), VALUES == 1)


def huge() -> bytes:
    """A picture of 2 MP by its header, with a checksum that fits."""
    content = bytearray(png(Image.fromarray(VALUES)))
    content[16:24] = struct.pack(">II", 2_000, 1_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


NOISE = png(Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 90), np.uint8)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        *((each, "is no PNG picture, or is damaged") for each in (NOISE[:-200], NOISE[:40], b"")),
        (huge(), "limit of 1 MP"),
        (png(Image.new("RGB", (4, 2))), "in colour.*--colors"),
        (png(Image.new("RGBA", (4, 2))), "transparency .mode RGBA"),
        (png(Image.new("LA", (4, 2))), "transparency"),
        (png(Image.fromarray(VALUES + 6)), "has the value 6, which names does not name"),
    ],
)
def test_what_is_no_label_map_is_a_sentence(content: bytes, reason: str) -> None:
    names = LabelValues({0: "sky", 1: "road", 255: None}, file="names")
    with pytest.raises(DatasetError, match=rf"a\.png .*{reason}"):
        read_class_map(content, "a.png", LIMITS).regions(names, (2, 4))


# ---- names of classes ---------------------------------------------------------------------------


TABLE = ClassTable(("sky", "road"), "other")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (["sky", "road"], {0: "sky", 1: "road", 255: None}),
        ({"classes": ["sky"], "nothing": 0}, {0: "sky"}),
        ({"7": "road", "24": "person"}, {7: "road", 24: "person", 255: None}),
        ({"classes": [{"value": 3, "name": " sky "}], "nothing": None}, {3: "sky"}),
        (TABLE.to_json("smallest"), {0: None, 1: "sky", 2: "road", 255: None}),
    ],
)
def test_forms_of_json(tmp_path: Path, content: object, names: dict[int, str | None]) -> None:
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert LabelValues.read(tmp_path / "c.json").names == names


@pytest.mark.parametrize(
    "content",
    [
        *("{", "7", "[]", '[""]', '{"one": "a"}', "[" * 100_000),
        '{"classes": [{"value": -1, "name": "a"}]}',
        '{"classes": [{"value": 1, "name": "a"}, {"value": 1, "name": "b"}]}',
    ],
)
def test_what_is_no_such_file_is_refused_in_a_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "classes.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=r"classes\.json"):
        LabelValues.read(path)


# ---- folders -------------------------------------------------------------------------------------


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
        list(a.read_regions((1, 3)))


def test_a_link_out_of_the_folder_is_no_mask(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/names.txt").write_text("sky\n")
    put(tmp_path / "secret.png")
    put(tmp_path / "set/a.png")
    (tmp_path / "set/b.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "set/c.png").symlink_to("a.png")
    assert [each.name for each in read_index_png(tmp_path / "set", None, LIMITS)] == ["a", "c"]
