"""Images that end too early, against files of Pillow cut off anywhere."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.label_studio.download import is_truncated


def image_file(kind: str, **options: Any) -> bytes:
    """A file of a picture of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind, **options)
    return file.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG with a whole JPEG in a segment before its own data, as cameras write it."""
    inner, outer = image_file("JPEG", quality=30), image_file("JPEG")
    segment = b"Exif\0\0" + inner
    return outer[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + outer[2:]


@pytest.mark.parametrize(
    "whole",
    [
        image_file("JPEG"),
        image_file("JPEG", progressive=True),
        image_file("JPEG", restart_marker_blocks=1),
        with_thumbnail(),
        image_file("PNG"),
    ],
    ids=["baseline", "progressive", "restarts", "thumbnail", "png"],
)
def test_a_file_is_truncated_wherever_it_is_cut_off_and_not_where_it_is_whole(
    whole: bytes,
) -> None:
    with Image.open(io.BytesIO(whole)) as picture:
        picture.load()
    assert not is_truncated(whole)
    assert not is_truncated(whole + b"more behind its end")
    end = 12 if whole.startswith(b"\x89PNG") else 2
    for length in (*range(1, 40), *range(40, len(whole) - end, 97), len(whole) - end):
        assert is_truncated(whole[:length]), length


def test_of_other_files_nothing_is_said() -> None:
    for other in (b"<html>", image_file("GIF")[:30], b"\xff\xd8 no segments"):
        assert not is_truncated(other)
