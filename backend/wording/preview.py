"""Draw a small picture with a mask on it, for a page."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from clearclip_core import BoolMask, RGBArray
from clearclip_core.images.label_maps import blend
from clearclip_core.images.opening import to_data_url

#: Long side in px.
PREVIEW_PX: Final = 256

_COLOUR: Final = np.array([[255, 32, 96]], np.uint8)


def preview(rgb: RGBArray, mask: BoolMask | None) -> str:
    """Return a picture of at most 256 px with a mask laid over it, as a data URL of a JPEG.

    Args:
        rgb: (H, W, 3) uint8.
        mask: (H, W) bool; None for an empty one.
    """
    height, width = rgb.shape[:2]
    factor = min(1.0, PREVIEW_PX / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    if mask is not None:
        shown = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        small = blend(small, shown.astype(np.int16) - 1, _COLOUR)
    return to_data_url(small)
