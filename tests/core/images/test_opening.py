"""Which bytes become an image, and that none of them starts another program."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, UnidentifiedImageError

from clearclip_core.images.opening import FORMATS, open_image


def file(image: Image.Image, image_format: str) -> io.BytesIO:
    made = io.BytesIO()
    image.save(made, image_format)
    made.seek(0)
    return made


@pytest.mark.parametrize("image_format", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_formats_are_opened(image_format: str) -> None:
    assert image_format in FORMATS
    with open_image(file(Image.new("RGB", (3, 2), "red"), image_format)) as image:
        assert (image.format, image.size) == (image_format, (3, 2))


def test_a_path_is_opened(tmp_path: Path) -> None:
    Image.new("L", (2, 1), 7).save(tmp_path / "a.png")
    with open_image(tmp_path / "a.png") as image:
        assert np.asarray(image).tolist() == [[7, 7]]


@pytest.mark.parametrize("image_format", ["EPS", "ICO", "PCX", "TGA"])
def test_other_formats_are_not_tried(image_format: str) -> None:
    with pytest.raises(UnidentifiedImageError):
        open_image(file(Image.new("RGB", (16, 16)), image_format))


def test_only_the_expected_format_is_tried() -> None:
    with pytest.raises(UnidentifiedImageError):
        open_image(file(Image.new("RGB", (4, 4)), "JPEG"), formats=("PNG",))


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


def _ppm(comment: bytes) -> io.BytesIO:
    return io.BytesIO(b"P6\n#" + comment + b"\n2 1\n#x\n255\n" + b"\1\2\3\4\5\6" + b"\0" * 70_000)


def test_a_ppm_may_have_a_comment() -> None:
    with open_image(_ppm(b"made by hand")) as image:
        assert image.size == (2, 1)
        assert image.getpixel((1, 0)) == (4, 5, 6)


def test_a_ppm_with_a_comment_of_megabytes_is_read_no_further(tmp_path: Path) -> None:
    source = _ppm(b"x" * (1 << 20))
    with pytest.raises(UnidentifiedImageError, match="PPM"):
        open_image(source)
    assert source.tell() == 0
    path = tmp_path / "a.ppm"
    path.write_bytes(source.getvalue())
    with pytest.raises(UnidentifiedImageError, match="PPM"):
        open_image(path)
