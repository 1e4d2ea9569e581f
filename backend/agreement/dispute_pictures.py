"""Draw the pixels in dispute over their image."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from clearclip_core import BoolMask, RGBArray
from clearclip_core.images.opening import to_data_url

#: Long side of a picture in px.
SIDE_PX: Final = 480

#: Colour of pixels in dispute, and the share of it where all that a pixel shows is in dispute.
_COLOUR: Final = (255, 0, 160)
_OPACITY: Final = 0.6

#: How much of the image's own colour is left: the rest is grey, so that the dispute stands out.
_COLOURFULNESS: Final = 0.5

#: (h, w), how much of each pixel is in dispute: 0 to 255.
Coverage = npt.NDArray[np.uint8]


def shrink(disputed: BoolMask) -> Coverage:
    """Shrink pixels in dispute (H, W) to the size of a picture.

    >>> shrink(np.eye(960, dtype=bool)[:, :480]).shape
    (480, 240)
    """
    factor = min(1.0, SIDE_PX / max(disputed.shape))
    height, width = (max(1, round(side * factor)) for side in disputed.shape)
    values = disputed.astype(np.uint8) * 255
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def dispute_picture(rgb: RGBArray, coverage: Coverage) -> str:
    """Return an image (H, W, 3) uint8 with its pixels in dispute as the data URL of a JPEG.

    Thin lines fade less than their coverage, so that they are seen.

    Args:
        rgb: the image.
        coverage: see `shrink`.
    """
    height, width = coverage.shape
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = small.mean(axis=2, keepdims=True)
    base = _COLOURFULNESS * small + (1 - _COLOURFULNESS) * grey
    opacity = _OPACITY * np.sqrt(coverage[..., None].astype(np.float32) / 255)
    drawn = opacity * np.array(_COLOUR, np.float32) + (1 - opacity) * base
    return to_data_url(np.rint(drawn).astype(np.uint8))
