"""Decode ordinary JPEG files with OpenCV, which has the same decoder as Pillow and copies less.

Both ask libjpeg-turbo for the same pixels. Pillow keeps them with a fourth byte and copies them
twice on their way to an array while it holds the interpreter; OpenCV does neither.
"""

from __future__ import annotations

import io
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from clearclip_core.images.jpeg_scans import plain_frame_hw

_END: Final = b"\xff\xd9"

#: OpenCV 4.11 and later decode to RGB; earlier ones to BGR, whose pixels are turned round after.
_HAS_RGB: Final = hasattr(cv2, "IMREAD_COLOR_RGB")


def decode_jpeg(image: Image.Image) -> npt.NDArray[np.uint8] | None:
    """Decode an opened JPEG file in memory, if it is one of 8-bit colour that is whole.

    What else a JPEG file may be, grey, CMYK, truncated or with bytes behind its end, is left to
    Pillow, whose errors are known.

    Args:
        image: as `clearclip_core.images.opening.open_image` returns it.

    Returns:
        (H, W, 3) uint8 RGB as stored, not turned; None where Pillow is to decode it.
    """
    if not isinstance(image, JpegImageFile) or image.format != "JPEG" or image.mode != "RGB":
        return None
    if not image.tile or not isinstance(image.fp, io.BytesIO):  # it is decoded, or no such file
        return None
    content = image.fp.getvalue()
    size_hw = image.height, image.width
    # The size was checked against limits: the decoder must read the same one.
    if not content.endswith(_END) or plain_frame_hw(content) != size_hw:
        return None
    colour = cv2.IMREAD_COLOR_RGB if _HAS_RGB else cv2.IMREAD_COLOR
    flags = colour | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)  # noqa: TID251
    if decoded is None or decoded.shape != (*size_hw, 3):
        return None
    rgb = decoded if _HAS_RGB else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return np.asarray(rgb, dtype=np.uint8)


def transpose(rgb: npt.NDArray[np.uint8], how: Image.Transpose) -> npt.NDArray[np.uint8]:
    """Turn or mirror an (H, W, 3) array as ``Image.transpose`` does."""
    if how in _ROTATIONS:
        turned = cv2.rotate(rgb, _ROTATIONS[how])
    elif how in _FLIPS:
        turned = cv2.flip(rgb, _FLIPS[how])
    else:
        turned = cv2.transpose(rgb)
        if how is Image.Transpose.TRANSVERSE:
            turned = cv2.rotate(turned, cv2.ROTATE_180)
    return np.asarray(turned, dtype=np.uint8)


_ROTATIONS: Final = {
    Image.Transpose.ROTATE_90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    Image.Transpose.ROTATE_180: cv2.ROTATE_180,
    Image.Transpose.ROTATE_270: cv2.ROTATE_90_CLOCKWISE,
}
_FLIPS: Final = {Image.Transpose.FLIP_LEFT_RIGHT: 1, Image.Transpose.FLIP_TOP_BOTTOM: 0}
