"""Label maps of every depth, against the values that were drawn; and files that are none."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from backend.dataset.mask_source import Limits
from backend.dataset.readers.label_map import LabelValues, read_label_map
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
        png(with_palette(VALUES, (10, 20, 30), (40, 50, 60))),
        png(with_palette(VALUES, (10, 20, 30), (40, 50, 60)), bits=2),
        png(Image.fromarray(VALUES.astype(bool))),
        png(Image.fromarray(VALUES.astype(np.uint16))),
        raw_png(VALUES, 1),
        raw_png(VALUES, 2),
        raw_png(VALUES, 4),
    ],
)
def test_the_values_are_those_that_the_file_has(content: bytes) -> None:
    found = read_label_map(content, "a.png", LIMITS)
    np.testing.assert_array_equal(found.values, VALUES)
    regions = found.regions(NAMES, (2, 4))
    assert [region.label for region in regions] == ["sky", "road"]
    np.testing.assert_array_equal(regions[0].read_mask(), VALUES == 0)
    np.testing.assert_array_equal(regions[1].read_mask(), VALUES == 1)


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("RGB", "in colour.*--colors"), ("RGBA", "transparency .mode RGBA"), ("LA", "transparency")],
)
def test_a_picture_in_colour_is_refused(mode: str, reason: str) -> None:
    content = png(Image.new(mode, (4, 2)))
    with pytest.raises(DatasetError, match=reason):
        read_label_map(content, "a.png", LIMITS).regions(LabelValues({0: "sky"}), (2, 4))


def test_a_truncated_file_and_one_of_another_format_are_refused() -> None:
    whole = png(Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 90), np.uint8)))
    jpeg = io.BytesIO()
    Image.new("L", (4, 2)).save(jpeg, "JPEG")
    for content in (whole[:-200], whole[:40], b"", jpeg.getvalue()):
        with pytest.raises(DatasetError, match=r"a\.png is no PNG picture, or is damaged"):
            read_label_map(content, "a.png", LIMITS)


def test_a_file_that_claims_to_be_huge_is_refused_before_it_is_decoded() -> None:
    content = bytearray(png(Image.fromarray(VALUES)))
    content[16:24] = struct.pack(">II", 40_000, 40_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(DatasetError, match=r"limit of 1 MP|the limit is 1 MP"):
        read_label_map(bytes(content), "a.png", LIMITS)


def test_a_value_without_a_name_is_refused() -> None:
    found = read_label_map(png(Image.fromarray(VALUES + 6)), "a.png", LIMITS)
    with pytest.raises(DatasetError, match=r"a\.png has the value 6, which names does not name"):
        found.regions(NAMES, (2, 4))


def test_a_palette_that_was_renumbered_is_noticed() -> None:
    """Image editors sort palettes as they save, and the pixels with them."""
    content = png(with_palette(1 - VALUES, (40, 50, 60), (10, 20, 30)))
    with pytest.raises(DatasetError, match=r'the value 0 \("sky"\) in \(40, 50, 60\)'):
        read_label_map(content, "a.png", LIMITS).regions(NAMES, (2, 4))
    short = png(with_palette(VALUES, (10, 20, 30)))
    with pytest.raises(DatasetError, match=r'"road".* in no colour|"road".* in .0, 0, 0.'):
        read_label_map(short, "a.png", LIMITS).regions(NAMES, (2, 4))
