"""Draw a place of an image twice: as it is annotated, and as the scores see it."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from clearclip_core import RGBArray, palette
from clearclip_core.images.data_url import to_data_url
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth
from clearclip_core.images.visualization import blend

#: Long side of a picture in px.
_SIDE_PX: Final = 320

#: Share of the image's sides that is shown at least, and that is shown around a place.
_LEAST_SHOWN: Final = 0.4
_MARGIN: Final = 0.1

_OPACITY: Final = 0.45
_WHITE: Final = (255, 255, 255)

Box = tuple[slice, slice]


def place_pictures(
    rgb: RGBArray, truth: Truth, made: npt.NDArray[np.int16], box: Box
) -> tuple[str, str]:
    """Return two pictures of a place and what is around it, as data URLs of JPEGs.

    Equal labels have equal colours in both. A white frame marks the place.

    Args:
        rgb: (H, W, 3) uint8.
        truth: (H, W) label indices of the annotation, see `draw_label_map`.
        made: (H, W) label indices by the scores, -1 for none.
        box: rows and columns of the place.
    """
    painted = np.where((truth == NOTHING) | (truth == IGNORE), -1, truth.astype(np.int16))
    return _picture(rgb, painted, box), _picture(rgb, made, box)


def _picture(rgb: RGBArray, label_map: npt.NDArray[Any], box: Box) -> str:
    rows, columns = (_around(side, length) for side, length in zip(box, rgb.shape[:2], strict=True))
    part, labels = rgb[rows, columns], label_map[rows, columns]
    factor = min(1.0, _SIDE_PX / max(part.shape[:2]))
    size = max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor))
    small = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    shown = cv2.resize(np.ascontiguousarray(labels), size, interpolation=cv2.INTER_NEAREST)
    drawn = blend(small, shown, palette(int(label_map.max()) + 2), _OPACITY)
    first, last = (
        (round((x - columns.start) * factor), round((y - rows.start) * factor))
        for x, y in ((box[1].start, box[0].start), (box[1].stop - 1, box[0].stop - 1))
    )
    return to_data_url(np.asarray(cv2.rectangle(drawn, first, last, _WHITE, 1), np.uint8))


def _around(side: slice, length: int) -> slice:
    """Return a side of a box with what is around it, inside an image of that length."""
    margin = max(_MARGIN * length, (_LEAST_SHOWN * length - (side.stop - side.start)) / 2)
    return slice(max(0, round(side.start - margin)), min(length, round(side.stop + margin)))
