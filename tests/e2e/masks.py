"""Decode masks with Label Studio's own converter, and compare masks by IoU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from label_studio_sdk.converter.brush import decode_rle

Mask = npt.NDArray[np.bool_]


def decode(region: dict[str, Any]) -> Mask:
    """Decode a stored brush region into a (H, W) bool mask."""
    height, width = region["original_height"], region["original_width"]
    return np.asarray(decode_rle(region["value"]["rle"]).reshape(height, width, 4)[..., 3] > 127)


def iou(a: Mask, b: Mask) -> float:
    """Return the intersection over union of two masks."""
    return float((a & b).sum() / (a | b).sum())
