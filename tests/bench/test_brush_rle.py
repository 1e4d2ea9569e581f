"""Brush masks: ours against Label Studio's own converter, on one 12-megapixel mask."""

from __future__ import annotations

import numpy as np
from label_studio_sdk.converter.brush import decode_rle as sdk_decode
from label_studio_sdk.converter.brush import encode_rle as sdk_encode

from backend.label_studio.brush_rle import decode_rle, encode_runs
from clearclip_core import RunMask
from tests.bench.conftest import Report
from tests.bench.timing import compare


def test_rle(report: Report) -> None:
    y, x = np.mgrid[:3000, :4000]
    mask = (np.hypot(y - 1500, x - 2000) < 1200) ^ ((x // 97 + y // 89) % 7 == 0)
    rgba = np.repeat(mask.ravel().astype(np.uint8) * 255, 4)
    rle = encode_runs(RunMask.of(mask))
    assert rle == list(sdk_encode(rgba))
    alpha = np.asarray(sdk_decode(rle)).reshape(*mask.shape, 4)[..., 3]
    assert np.array_equal(decode_rle(rle, *mask.shape), alpha)
    encode = compare(
        lambda: sdk_encode(rgba), lambda: encode_runs(RunMask.of(mask)), rounds=3, warm_up=False
    )
    report.add(
        "RLE encode, 12 megapixels, against the SDK", "5×", f"{encode.ratio:.1f}×", f"{encode}"
    )
    decode = compare(
        lambda: sdk_decode(rle), lambda: decode_rle(rle, *mask.shape), rounds=3, warm_up=False
    )
    report.add(
        "RLE decode, 12 megapixels, against the SDK", "20×", f"{decode.ratio:.1f}×", f"{decode}"
    )
