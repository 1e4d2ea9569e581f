"""Crops: the part of a picture that shows what is meant, with what is around it."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from clearclip_core import BoolMask, RGBArray
from clearclip_core.images.drawing import thumbnail
from clearclip_core.images.opening import to_data_url

#: Share of the image's sides that is shown at least, and that is shown around a place.
_LEAST_SHOWN: Final = 0.4
_MARGIN: Final = 0.1


def around(side: slice, length: int) -> slice:
    """Return a side of a box with what is around it, inside an image of that length in px."""
    margin = max(_MARGIN * length, (_LEAST_SHOWN * length - (side.stop - side.start)) / 2)
    return slice(max(0, round(side.start - margin)), min(length, round(side.stop + margin)))


def largest_place(mask: BoolMask) -> tuple[slice, slice]:
    """Return the rows and columns of the largest connected part of a mask.

    Args:
        mask: (H, W) bool, not empty.

    >>> largest_place(np.array([[1, 0, 0], [0, 0, 1], [0, 0, 1]], bool))
    (slice(1, 3, None), slice(2, 3, None))
    """
    _, _, parts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    areas = parts[1:, cv2.CC_STAT_AREA]  # the first part is what is outside the mask
    left, top, width, height = parts[1 + int(areas.argmax()), : cv2.CC_STAT_AREA].tolist()
    return slice(top, top + height), slice(left, left + width)


def crop_of(rgb: RGBArray, mask: BoolMask, colour: RGBArray, side_px: int) -> str:
    """Draw the largest connected part of a mask, with what is around it.

    Args:
        rgb: (H, W, 3) uint8.
        mask: (H, W) bool, not empty.
        colour: (1, 3) uint8, of the mask.
        side_px: long side of the crop in px, at most.

    Returns:
        A data URL of a JPEG.
    """
    place = largest_place(mask)
    shown = tuple(around(side, length) for side, length in zip(place, mask.shape, strict=True))
    label_map = mask[shown].astype(np.int16) - 1
    return to_data_url(thumbnail(rgb[shown], label_map, colour, side_px))
