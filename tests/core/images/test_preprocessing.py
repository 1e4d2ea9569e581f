"""Pictures of every kind, against values worked out by hand."""

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from clearclip_core.images.preprocessing import Preprocessing, to_rgb


def reread(picture: Image.Image, suffix: str, **options: object) -> Image.Image:
    """A picture as it comes back from a file."""
    stream = io.BytesIO()
    picture.save(stream, suffix, **options)
    return Image.open(stream)


def drawn(mode: str, *pixels: Any) -> Image.Image:
    picture = Image.new(mode, (len(pixels), 1))
    if mode == "P":
        picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putdata(list(pixels))
    return picture


WHITE = [255, 255, 255]


@pytest.mark.parametrize(
    ("picture", "rgb"),
    [
        (Image.new("L", (1, 1), 7), [[7, 7, 7]]),
        (reread(drawn("LA", (0, 128)), "png"), [[127, 127, 127]]),  # half black over white
        (reread(drawn("P", 0, 1), "png"), [[10, 20, 30], [40, 50, 60]]),
        (reread(drawn("P", 0, 1), "png", transparency=1), [[10, 20, 30], WHITE]),
        (  # 51 is a fifth
            reread(drawn("RGBA", (200, 0, 0, 255), (200, 0, 0, 0), (0, 100, 255, 51)), "png"),
            [[200, 0, 0], WHITE, [204, 224, 255]],
        ),
        (reread(drawn("CMYK", (0, 0, 0, 0), (255, 0, 255, 0)), "tiff"), [WHITE, [0, 255, 0]]),
        (reread(drawn("1", 0, 255), "png"), [[0, 0, 0], WHITE]),
    ],
)
def test_pictures_of_each_mode(picture: Image.Image, rgb: list[list[int]]) -> None:
    assert to_rgb(picture).tolist() == [rgb]
    if picture.mode == "RGBA":
        assert to_rgb(np.asarray(picture)).tolist() == [rgb]


def test_sixteen_bit_grey_keeps_its_upper_bits() -> None:
    values = np.array([[0, 255, 256, 0x1234, 65535]], np.uint16)
    expected = [[[v, v, v] for v in (0, 0, 1, 0x12, 255)]]
    read = reread(Image.fromarray(values), "png")
    assert read.mode == "I;16"
    assert to_rgb(read).tolist() == expected
    assert to_rgb(read.convert("I")).tolist() == expected
    assert to_rgb(values).tolist() == expected
    assert to_rgb(values.astype(">u2")).tolist() == expected


def test_floats_are_zero_to_one_or_zero_to_255() -> None:
    unit = np.array([[0, 0.5, 1.02, -0.05, np.nan]])  # as resizing leaves them
    assert to_rgb(unit)[0, :, 0].tolist() == [0, 128, 255, 0, 0]
    wide = np.array([[0, 0.5, 1, 254.6, 999]], np.float32)
    assert to_rgb(wide)[0, :, 0].tolist() == [0, 0, 1, 255, 255]
    assert to_rgb(reread(Image.fromarray(wide), "tiff"))[0, :, 0].tolist() == [0, 0, 1, 255, 255]


@pytest.mark.parametrize("values", [(-2.1, 2.6), (-1.0, 1.0), (1.2, 2.6), (-40.0, 255.0)])
def test_arrays_that_were_normalised_are_refused(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="give the picture as it was before it was normalised"):
        to_rgb(np.array([values], np.float32))


def test_files_of_floats_may_hold_any() -> None:
    heights = Image.fromarray(np.array([[-12.5, 2.0]], np.float32))
    assert to_rgb(reread(heights, "tiff"))[0, :, 0].tolist() == [0, 2]


def _exif(*entries: bytes) -> bytes:
    """One directory of EXIF, little-endian; room for a rational at byte 38, after two entries."""
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    return b"Exif\0\0" + head + b"".join(entries) + struct.pack("<III", 0, 1, 1)


_TURNED = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)


def test_a_picture_is_turned_although_its_exif_cannot_be_written_anew() -> None:
    """As some cameras do it: the maker is no text but a rational number."""
    exif = _exif(struct.pack("<HHII", 0x010F, 5, 1, 38), _TURNED)
    read = reread(Image.new("RGB", (32, 24), "red"), "jpeg", exif=exif)
    assert read.getexif()[0x010F] == 1
    assert to_rgb(read).shape == (32, 24, 3)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"no EXIF", _exif(_TURNED)[:20]])
@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp"])
def test_a_picture_whose_exif_cannot_be_read_is_not_turned(exif: bytes, suffix: str) -> None:
    read = reread(Image.new("RGB", (32, 24), "red"), suffix, exif=exif)
    assert to_rgb(read).shape == (24, 32, 3)


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 1), (2, 5, 3), (2, 5, 4)])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f2", "f4", "f8", "?"])
def test_arrays_of_each_kind(shape: tuple[int, ...], dtype: str) -> None:
    white = {"u1": 255, "u2": 65535}.get(dtype, 1)
    rgb = to_rgb(np.full(shape, white, dtype))
    assert (rgb.shape, rgb.dtype, rgb.flags.c_contiguous) == ((2, 5, 3), np.uint8, True)
    assert rgb.min() == 255
    nothing = 255 if shape[-1] == 4 else 0  # transparent, or black
    assert np.unique(to_rgb(np.zeros(shape, dtype))).tolist() == [nothing]


@pytest.mark.parametrize("shape", [(5,), (2, 5, 2), (2, 5, 5), (1, 2, 5, 3), (0, 5, 3), (5, 0)])
def test_arrays_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"`image` to be a path, .* an array \(H, W\)"):
        to_rgb(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", ["i1", "i4", "i8", "u4", "c8", "U1"])
def test_arrays_of_other_dtypes_are_refused(dtype: str) -> None:
    """An int64 array may hold 8 or 16 bits: guessing would show a black picture."""
    with pytest.raises(ValueError, match="`image` to hold uint8, uint16, bool or floats"):
        to_rgb(np.zeros((2, 2), dtype))


@pytest.mark.parametrize(
    ("image_hw", "resized_hw"),
    [
        ((448, 448), (448, 448)),
        ((1080, 1920), (448, 796)),  # 1920 * 448 / 1080 = 796.4
        ((375, 500), (448, 597)),  # 597.3
        ((427, 640), (448, 671)),  # 671.48
        ((300, 401), (448, 599)),  # 598.8, up
        ((640, 427), (671, 448)),
        ((896, 1001), (448, 501)),  # 500.5: halves go up
        ((1001, 896), (501, 448)),
        ((1000, 5000), (410, 2048)),  # the long side limits: 409.6
        ((16, 12000), (3, 2048)),  # 2.73
        ((12000, 16), (2048, 3)),
        ((1, 12000), (1, 2048)),  # 0.17, but never less than a pixel
    ],
)
def test_resized_sizes_by_hand(image_hw: tuple[int, int], resized_hw: tuple[int, int]) -> None:
    assert Preprocessing().resized_hw(image_hw) == resized_hw


@pytest.mark.parametrize("size_hw", [(37, 61), (90, 30), (500, 700)])
def test_resize_is_cv2s_bilinear_on_bytes(size_hw: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    scale = 64 / min(size_hw)
    height, width = (int(side * scale + 0.5) for side in size_hw)
    resized = Preprocessing(short_side_px=64).resize(rgb)
    expected = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resized, expected)
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None].double()  # no antialiasing:
    plain = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear")[0]
    assert np.abs(resized - plain.permute(1, 2, 0).numpy()).max() < 1.5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"short_side_px": 0}, "`short_side_px`"),
        ({"long_side_px": 0}, "`long_side_px`"),
        ({"window_px": 0}, "`window_px`"),
        ({"stride_px": 0}, "`stride_px`"),
        ({"window_px": 32, "stride_px": 33}, "pixels are left out"),
        ({"std": (1, 0, 1)}, "`std`"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(arguments: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Preprocessing(**arguments)  # type: ignore[arg-type]
