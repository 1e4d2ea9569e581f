"""Brush masks: ours against Label Studio's own converter, on one 12-megapixel mask."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from label_studio_sdk.converter.brush import decode_rle as sdk_decode
from label_studio_sdk.converter.brush import encode_rle as sdk_encode

from backend.rle import decode_rle, encode_rle


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and its result."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def test_rle() -> None:
    y, x = np.mgrid[:3000, :4000]
    mask = (np.hypot(y - 1500, x - 2000) < 1200) ^ ((x // 97 + y // 89) % 7 == 0)
    rgba = np.repeat(mask.ravel().astype(np.uint8) * 255, 4)
    reference_s, expected = timed(lambda: sdk_encode(rgba))
    ours_s, rle = timed(lambda: encode_rle(mask))
    assert rle == list(expected)
    print(f"\nencode 12 MP: {ours_s:.2f} s, {reference_s / ours_s:.1f} times the SDK's speed")
    reference_s, expected = timed(lambda: sdk_decode(rle))
    ours_s, alpha = timed(lambda: decode_rle(rle, *mask.shape))
    assert np.array_equal(alpha, np.asarray(expected).reshape(*mask.shape, 4)[..., 3])
    print(f"decode 12 MP: {ours_s:.2f} s, {reference_s / ours_s:.1f} times the SDK's speed")
