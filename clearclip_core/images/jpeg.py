"""Read the markers of a JPEG file (ITU-T T.81, annex B): its scans, its frame and its end.

The decoder goes over the whole image for each scan, and a scan may have no more than a few bytes.
Ten scans are usual for a progressive file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

#: A marker; FF 00 is a byte of the image, and FF may be filled up with more FF.
_MARKER: Final = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)

#: A marker that is no restart inside of a scan, its last FF alone: what begins with one known byte
#: is found by a search for that byte, twenty times as fast.
_NO_RESTART: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)

#: Segments that are read.
_MAX_SEGMENTS: Final = 10_000

#: Markers of frames: all but DHT, JPG and DAC.
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN: Final = (0xC0, 0xC1, 0xC2)
_PROGRESSIVE: Final = (0xC2, 0xC6, 0xCA, 0xCE)
_END, _SCAN, _LONE = 0xD9, 0xDA, frozenset((0x01, *range(0xD0, 0xD9)))

#: Stands for a marker after the last segment that is read.
_TOO_MANY: Final = -1


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker of each segment up to the end, and where its content begins."""
    at = 0
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None or found[1][0] == _END:
            return
        marker, at = found[1][0], found.end()
        if marker not in _LONE:
            yield marker, at
            at += int.from_bytes(data[at : at + 2], "big")
    yield _TOO_MANY, at


def has_many_scans(data: bytes, most: int) -> bool:
    """Tell whether the first image of a JPEG file has more scans than some, or too many segments.

    >>> has_many_scans(bytes.fromhex("ffd8" + "ffda0002" * 3 + "ffd9"), most=2)
    True
    """
    scans = components = 0
    is_progressive = False
    for marker, at in _segments(data):
        if marker in _FRAMES:
            is_progressive, components = marker in _PROGRESSIVE, _byte(data, at + 7)
        elif marker == _SCAN:
            scans += 1
            if scans > most:
                return True
            if not is_progressive and components and _byte(data, at + 2) == components:
                return False  # it has all components: the decoder ends with it
        elif marker == _TOO_MANY:
            return True
    return False


def plain_frame_hw(data: bytes) -> tuple[int, int] | None:
    """Return the size of the frame of a JPEG file of three 8-bit components in Huffman code.

    Returns:
        Height and width; None for any other file, such as one with two frames before a scan, or a
        sequential one with more behind its first scan than the end of the image.

    >>> frame = bytes.fromhex("ffc00011" "08" "0003" "0005" "03" "011100" "021101" "031101")
    >>> plain_frame_hw(bytes.fromhex("ffd8") + frame + bytes.fromhex("ffda0002" "12ff00" "ffd9"))
    (3, 5)
    """
    found_hw, is_progressive = None, False
    for marker, at in _segments(data):
        if marker == _SCAN:
            # Pillow refuses a progressive file whose markers are damaged; so does OpenCV.
            return found_hw if is_progressive or _ends_with_its_scan(data, at) else None
        if marker in _FRAMES:
            precision, components = _byte(data, at + 2), _byte(data, at + 7)
            if found_hw or marker not in _HUFFMAN or (precision, components) != (8, 3):
                return None
            is_progressive = marker in _PROGRESSIVE
            height, width = (int.from_bytes(data[at + n : at + n + 2], "big") for n in (3, 5))
            found_hw = height, width
    return None


def is_cut_off(data: bytes) -> bool:
    """Tell whether a JPEG file ends before the mark of its end; False where it has no segments.

    A thumbnail in a segment has an end of its own, so the mark is looked for from the scan on.

    >>> is_cut_off(bytes.fromhex("ffd8ffda000212")), is_cut_off(bytes.fromhex("ffd8ffda0002ffd9"))
    (True, False)
    """
    marker: int | None = None
    for marker, at in _segments(data):
        if marker == _SCAN:
            return data.find(bytes((0xFF, _END)), at) < 0
    return marker is not None


def _ends_with_its_scan(data: bytes, at: int) -> bool:
    """Tell whether nothing but the end of the file follows the scan whose marker ends at `at`."""
    found = _NO_RESTART.search(data, at + int.from_bytes(data[at : at + 2], "big"))
    return found is not None and found[1][0] == _END and found.end() == len(data)


def _byte(data: bytes, at: int) -> int:
    return data[at] if at < len(data) else 0


_END_MARKER: Final = b"\xff\xd9"

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
    if not content.endswith(_END_MARKER) or plain_frame_hw(content) != size_hw:
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
