"""Which bytes become an image, and that none of them starts another program."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, UnidentifiedImageError

from clearclip_core.images import opening
from clearclip_core.images.opening import FORMATS, ImageWorkError, open_image


def file(image: Image.Image, image_format: str) -> io.BytesIO:
    made = io.BytesIO()
    image.save(made, image_format)
    made.seek(0)
    return made


@pytest.mark.parametrize("image_format", ["BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP"])
def test_formats_are_opened(image_format: str) -> None:
    assert image_format in FORMATS
    with open_image(file(Image.new("RGB", (3, 2), "red"), image_format)) as image:
        assert (image.format, image.size) == (image_format, (3, 2))


@pytest.mark.parametrize("image_format", ["EPS", "ICO", "PCX", "PPM", "TGA"])
def test_other_formats_are_not_tried(image_format: str, tmp_path: Path) -> None:
    with pytest.raises(UnidentifiedImageError):
        open_image(file(Image.new("RGB", (16, 16)), image_format))
    Image.new("L", (2, 1), 7).save(tmp_path / "a.png")
    with open_image(tmp_path / "a.png") as image:
        assert np.asarray(image).tolist() == [[7, 7]]
    with pytest.raises(UnidentifiedImageError):
        open_image(tmp_path / "a.png", formats=("JPEG",))


def test_pillow_starts_no_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where somebody else opens an image with all of Pillow's decoders."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert EpsImagePlugin.gs_binary is False
    with (
        Image.open(file(Image.new("RGB", (4, 4)), "EPS")) as image,
        pytest.raises(OSError, match="Ghostscript"),
    ):
        image.load()
    assert not (tmp_path / "started").exists()


def many_chunks() -> bytes:
    png = file(Image.new("L", (8, 8)), "PNG").getvalue()
    chunk = struct.pack(">I", 0) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
    return png[:33] + chunk * 2000 + png[33:]


def many_scans() -> bytes:
    """A grey file whose last scan, of a few bytes, is repeated."""
    made = io.BytesIO()
    Image.new("L", (640, 640)).save(made, "JPEG", progressive=True)
    jpeg = made.getvalue()
    return jpeg[:-2] + jpeg[jpeg.rindex(b"\xff\xda") : -2] * 20_000 + b"\xff\xd9"


LABORIOUS = {
    "chunks of a PNG": (many_chunks, "more than 1000 parts"),
    "scans of a JPEG": (many_scans, "too many scans"),
    "segments of a JPEG": (lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 100_000, "more than 1000 parts"),
}


@pytest.mark.parametrize("name", LABORIOUS)
def test_files_that_take_too_long_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_MAX_READS", 1000)
    make, sentence = LABORIOUS[name]
    with pytest.raises(ImageWorkError, match=sentence):
        open_image(io.BytesIO(make())).load()
