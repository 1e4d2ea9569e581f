"""JPEG files: their markers, and decoding by OpenCV."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from clearclip_core import render_scene
from clearclip_core.images.jpeg import decode_jpeg, has_too_many_scans
from clearclip_core.images.opening import open_image
from clearclip_core.images.preprocessing import decode_rgb, to_rgb

SCENE = Image.fromarray(render_scene(5, size_hw=(150, 203)).image)


def jpeg(image: Image.Image = SCENE, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def opened(content: bytes) -> Image.Image:
    return open_image(io.BytesIO(content))


def by_pillow(content: bytes) -> npt.NDArray[np.uint8]:
    return to_rgb(Image.open(io.BytesIO(content)))


def assert_same(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> None:
    """Releases of the decoder may round otherwise."""
    assert one.shape == other.shape
    assert one.dtype == np.uint8
    assert one.flags.c_contiguous
    assert np.abs(one.astype(int) - other).max() <= 1


@pytest.mark.parametrize(
    "options",
    [
        *({}, {"progressive": True}, {"optimize": True}, {"quality": 30}, {"keep_rgb": True}),
        *({"subsampling": each} for each in range(3)),
        {"restart_marker_blocks": 3},
        {"comment": b"two bytes of an end: \xff\xd9"},
    ],
)
def test_plain_files_have_the_pixels_that_pillow_gives_them(options: dict[str, Any]) -> None:
    content = jpeg(**options)
    decoded = decode_jpeg(opened(content))
    assert decoded is not None
    assert_same(decoded, by_pillow(content))
    assert np.abs(decoded.astype(int) - np.asarray(SCENE)).mean() < 12, "red is red"


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 3}])
def test_a_damaged_scan_is_refused_as_by_pillow(options: dict[str, Any]) -> None:
    """OpenCV would return it, grey from the damage on."""
    content = bytearray(jpeg(**options))
    middle = len(content) // 2
    content[middle : middle + 2] = b"\xff\xc0"
    assert decode_jpeg(opened(bytes(content))) is None
    with pytest.raises(OSError, match="broken data stream"):
        decode_rgb(opened(bytes(content)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_they_are_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = jpeg(exif=exif)
    assert decode_jpeg(opened(content)) is not None
    assert_same(decode_rgb(opened(content)), by_pillow(content))


def frame_again(content: bytes, height: int) -> bytes:
    """Put a second frame, of another height, before the first scan."""
    at = content.index(b"\xff\xc0")
    frame = content[at : at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")]
    other = frame[:5] + height.to_bytes(2, "big") + frame[7:]
    scan = content.index(b"\xff\xda")
    return content[:scan] + other + content[scan:]


@pytest.mark.parametrize(
    "content",
    [
        jpeg(SCENE.convert("L")),
        jpeg(SCENE.convert("CMYK")),
        jpeg()[:-2],
        jpeg()[:-500],
        jpeg() + b"\0",
        jpeg()[:-2] + b"\xff\xff\xc4\xff\xd9",
        frame_again(jpeg(), 30_000),
    ],
    ids=["grey", "CMYK", "no end", "truncated", "more behind it", "another marker", "two frames"],
)
def test_all_else_is_left_to_pillow(content: bytes) -> None:
    assert decode_jpeg(opened(content)) is None


def test_a_truncated_file_is_an_error() -> None:
    for lost in (1, 100, 2000):
        with pytest.raises(OSError, match="truncated"):
            decode_rgb(opened(jpeg()[:-lost]))


def test_other_formats_and_decoded_images_are_left_to_pillow() -> None:
    file = io.BytesIO()
    SCENE.save(file, "PNG")
    assert decode_jpeg(opened(file.getvalue())) is None
    np.testing.assert_array_equal(decode_rgb(opened(file.getvalue())), np.asarray(SCENE))
    image = opened(jpeg())
    image.load()
    assert decode_jpeg(image) is None
    assert decode_jpeg(SCENE) is None


def repeated(content: bytes, times: int) -> bytes:
    scan = content.rindex(b"\xff\xda")
    return content[:-2] + content[scan:-2] * times + content[-2:]


def test_scans_count_as_many_times_as_the_decoder_goes_over_the_image() -> None:
    """Small images take as long as those of less than a megapixel."""
    for content in (jpeg(progressive=True), jpeg(SCENE.convert("L"), progressive=True)):
        assert not has_too_many_scans(opened(repeated(content, 100)), repeated(content, 100))
        many = repeated(content, 10_000)
        assert has_too_many_scans(Image.open(io.BytesIO(many)), many)


def test_a_file_with_all_components_in_its_scan_has_one_whatever_stands_behind_it() -> None:
    """As the videos do that phones write there."""
    for content in (jpeg(), jpeg(SCENE.convert("L"))):
        content += b"\xff\xda" * 100_000
        assert not has_too_many_scans(opened(content), content)


@pytest.mark.parametrize(
    ("options", "least_px", "size_hw"),
    [
        ({}, 204, (150, 203)),
        ({}, 102, (150, 203)),
        ({}, 101, (75, 102)),
        ({"progressive": True}, 50, (38, 51)),
        ({}, 20, (19, 26)),
        ({}, 1, (19, 26)),
    ],
)
def test_a_small_picture_is_decoded_at_a_part_of_the_size(
    options: dict[str, Any], least_px: int, size_hw: tuple[int, int]
) -> None:
    small = decode_rgb(opened(jpeg(**options)), least_px)
    assert small.shape[:2] == size_hw
    shrunk = SCENE.resize(size_hw[::-1], Image.Resampling.BOX)
    assert np.abs(small.astype(int) - np.asarray(shrunk)).mean() < 12


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_small_picture_is_turned_upright_and_of_every_kind_of_jpeg(
    mode: str, orientation: int
) -> None:
    """Pillow decodes those of grey and CMYK."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = jpeg(SCENE.convert(mode), exif=exif)
    small, full = decode_rgb(opened(content), 50), by_pillow(content)
    height, width = (-(-side // 4) for side in full.shape[:2])
    assert small.shape == (height, width, 3)
    shrunk = Image.fromarray(full).resize((width, height), Image.Resampling.BOX)
    assert np.abs(small.astype(int) - np.asarray(shrunk)).mean() < 12


def test_a_small_picture_of_another_format_has_its_size() -> None:
    file = io.BytesIO()
    SCENE.save(file, "PNG")
    assert_same(decode_rgb(opened(file.getvalue()), 20), np.asarray(SCENE))
