"""A place is drawn twice, with its labels in equal colours and a frame around it."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.label_errors.place_pictures import place_pictures
from clearclip_core.images.label_maps import NOTHING


def decoded(url: str) -> npt.NDArray[np.int64]:
    data = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.int64)


def test_the_place_and_what_is_around_it_is_shown_at_most_320_px_wide() -> None:
    rgb = np.full((600, 900, 3), 128, np.uint8)
    truth = np.full((600, 900), NOTHING, np.uint8)
    made = np.full((600, 900), -1, np.int16)
    truth[200:400, 300:600] = 1
    made[200:400, 300:450] = 1
    made[200:400, 450:600] = 0
    before, after = map(
        decoded, place_pictures(rgb, truth, made, (slice(200, 400), slice(300, 600)))
    )
    assert before.shape == after.shape
    assert max(before.shape[:2]) == 320
    height, width = before.shape[:2]
    middle, left, right, outside = height // 2, int(width * 0.4), int(width * 0.6), 4
    assert np.abs(before[middle, left] - before[middle, right]).max() < 8, "one label"
    assert np.abs(after[middle, left] - before[middle, left]).max() < 8, "equal colours"
    assert np.abs(after[middle, right] - before[middle, right]).max() > 30, "another label"
    assert np.abs(before[outside, outside] - 128).max() < 8, "nothing is painted there"
    assert before.min(axis=2).max() > 200, "a white frame"
