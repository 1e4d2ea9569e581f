"""Previews are small pictures with the mask in colour."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from backend.wording.preview import preview


def opened(address: str) -> np.ndarray:
    kind, _, data = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), np.int16)


def test_the_mask_is_coloured_and_the_rest_is_the_picture() -> None:
    rgb = np.full((300, 600, 3), 128, np.uint8)
    mask = np.zeros((300, 600), bool)
    mask[:, :300] = True
    small = opened(preview(rgb, mask))
    assert small.shape == (128, 256, 3)
    assert np.abs(small[:, 140:] - 128).max() <= 4
    assert (small[:, :110, 0] - small[:, :110, 1]).min() > 80
    assert np.abs(opened(preview(rgb, None)) - 128).max() <= 4
    assert opened(preview(rgb[:1, :1], mask[:1, :1])).shape == (1, 1, 3)
