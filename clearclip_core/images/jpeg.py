"""JPEG files (ITU-T T.81): decode those of usual kind by OpenCV, and tell those that take long."""

import io
import re
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

#: A marker in the data of a scan that is no restart. A byte FF of the data has 00 behind it.
_NO_RESTART: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)

#: The decoder goes over the whole image for each scan. A progressive file usually has ten. Fifty
#: scans of 144 megapixels, the most that are decoded, take five seconds.
_MAX_SCANNED_PX: Final = 7_200_000_000
_LEAST_SCANNED_PX: Final = 720_000  # a scan of a smaller image counts as one of this many pixels

_END_MARKER: Final = b"\xff\xd9"

#: OpenCV 4.11 and later decode to RGB; earlier ones to BGR, whose pixels are turned round after.
_HAS_RGB: Final = hasattr(cv2, "IMREAD_COLOR_RGB")

#: By what the sides of an image can be divided while it is decoded -> OpenCV's flag.
REDUCTIONS: Final = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def decode_jpeg(image: Image.Image, reduction: int = 1) -> npt.NDArray[np.uint8] | None:
    """Decode an opened JPEG file in memory: (H, W, 3) uint8 RGB as stored, not turned.

    It has to be whole and of 8-bit colour. For all others, grey, CMYK, truncated or with bytes
    behind their end, None is returned: Pillow decodes them, and its errors are known.

    Args:
        image: one that Pillow has opened and not decoded yet.
        reduction: one of `REDUCTIONS`; of 8, the height and width are an eighth, rounded up, since
            the decoder takes the lowest frequencies of each block alone (ITU-T T.81, DCT scaling).
    """
    content = _content_of_usual_kind(image)
    if content is None:
        return None

    has_rgb = _HAS_RGB and reduction == 1
    colour = cv2.IMREAD_COLOR_RGB if has_rgb else REDUCTIONS[reduction]
    flags = colour | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)  # noqa: TID251
    expected = -(-image.height // reduction), -(-image.width // reduction), 3
    if decoded is None or decoded.shape != expected:
        return None
    rgb = decoded if has_rgb else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return np.asarray(rgb, dtype=np.uint8)


def _content_of_usual_kind(image: Image.Image) -> bytes | None:
    """Return the bytes of a JPEG file that OpenCV decodes; None for others."""
    if not isinstance(image, JpegImageFile) or image.format != "JPEG" or image.mode != "RGB":
        return None
    if not image.tile or not isinstance(image.fp, io.BytesIO):  # it is decoded, or no such file
        return None
    content = image.fp.getvalue()
    return content if content.endswith(_END_MARKER) and _is_whole(image, content) else None


def has_too_many_scans(image: Image.Image, content: bytes) -> bool:
    """Tell whether decoding an opened image takes very long: a scan may have only a few bytes.

    Of its file, what stands behind the end of the image, as a video does, counts too.
    """
    if not isinstance(image, JpegImageFile) or image.fp is None:
        return False
    all_in_one = bytes((0xFF, 0xDA, 0, 6 + 2 * image.layers, image.layers))
    scan = content[: image.fp.tell()].rfind(all_in_one[:2])
    if "progressive" not in image.info and content.startswith(all_in_one, scan):
        return False  # the decoder ends with a scan that has all components
    pixels = max(image.width * image.height, _LEAST_SCANNED_PX)
    return content.count(all_in_one[:2]) * pixels > _MAX_SCANNED_PX


def _is_whole(image: JpegImageFile, content: bytes) -> bool:
    """Tell whether the data of the only scan, which Pillow has come to, reaches to the end.

    Of a progressive file with damaged markers OpenCV makes no image either.
    """
    if "progressive" in image.info:
        return True
    found = _NO_RESTART.search(content, image.fp.tell()) if image.fp is not None else None
    return found is not None and found.end() == len(content)


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
