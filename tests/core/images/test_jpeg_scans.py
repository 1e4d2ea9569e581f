"""Scans of files that libjpeg has written, and of files with many of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from clearclip_core.images.jpeg import has_many_scans, plain_frame_hw


def jpeg(mode: str = "RGB", noise: bool = True, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    made = io.BytesIO()
    Image.fromarray(pixels * noise).convert(mode).save(made, "JPEG", **options)
    return made.getvalue()


@pytest.mark.parametrize(
    ("data", "scans"),
    [
        (jpeg(progressive=True), 10),
        (jpeg("L", progressive=True), 6),
        (jpeg(progressive=True, restart_marker_rows=1), 10),
    ],
    ids=["colour", "grey", "restarts"],
)
def test_scans_of_progressive_files(data: bytes, scans: int) -> None:
    """The numbers are those of libjpeg's `jpeg_simple_progression`."""
    assert has_many_scans(data, scans - 1)
    assert not has_many_scans(data, scans)


def test_a_file_with_all_components_in_its_scan_has_one() -> None:
    data = jpeg()
    assert not has_many_scans(data, 1)
    assert not has_many_scans(data[:-2] + b"\xff\xda\x00\x02" * 99 + b"\xff\xd9", 1)


def test_scans_of_thumbnails_and_behind_the_end_are_none_of_the_image() -> None:
    data, thumbnail = jpeg("L", progressive=True), jpeg("L", noise=False, progressive=True)
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    assert not has_many_scans(data[:2] + segment + data[2:] + thumbnail, 6)


@pytest.mark.parametrize("cut", [3, 30, 300, 400])
def test_damaged_files_have_few(cut: int) -> None:
    assert not has_many_scans(jpeg()[:cut], 10)


@pytest.mark.parametrize("segment", [b"\xff\xfe\x00\x02", b"\xff\xd0", b"\xff\x01"])
def test_very_many_segments_are_too_many(segment: bytes) -> None:
    assert has_many_scans(b"\xff\xd8" + segment * 20_000, 10)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (jpeg(), (64, 80)),
        (jpeg(restart_marker_rows=1), (64, 80)),
        (jpeg()[:-2] + b"\xff\xff\xff\xd9", (64, 80)),
        (jpeg() + b"\xff\xd9", None),
        (jpeg()[:-2] + b"\xff\xff\xc4\xff\xd9", None),
        (jpeg()[:-2] + b"\xff\xff", None),
    ],
    ids=["one scan", "restarts", "filled up", "more behind it", "another marker", "no end"],
)
def test_the_scan_of_a_plain_file_is_its_last_segment(
    data: bytes, found: tuple[int, int] | None
) -> None:
    assert plain_frame_hw(data) == found
