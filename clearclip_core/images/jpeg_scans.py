"""Read the markers of a JPEG file (ITU-T T.81, annex B): its scans, its frame and its end.

The decoder goes over the whole image for each scan, and a scan may have no more than a few bytes.
Ten scans are usual for a progressive file.
"""

from __future__ import annotations

import re
from typing import Final

#: A marker; FF 00 is a byte of the image, and FF may be filled up with more FF.
_MARKER: Final = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)

#: A marker that is no restart inside of a scan, its last FF alone: what begins with one known byte
#: is found by a search for that byte, twenty times as fast.
_NO_RESTART: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)

#: Segments that are looked at.
_MAX_SEGMENTS: Final = 10_000

#: Markers of frames: all but DHT, JPG and DAC.
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN: Final = (0xC0, 0xC1, 0xC2)
_PROGRESSIVE: Final = (0xC2, 0xC6, 0xCA, 0xCE)
_END, _SCAN, _LONE = 0xD9, 0xDA, frozenset((0x01, *range(0xD0, 0xD9)))


def has_many_scans(data: bytes, most: int) -> bool:
    """Tell whether the first image of a JPEG file has more scans than some, or too many segments.

    Args:
        data: of the file.
        most: scans that are allowed.

    >>> has_many_scans(bytes.fromhex("ffd8" + "ffda0002" * 3 + "ffd9"), most=2)
    True
    """
    at = scans = components = 0
    is_progressive = False
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None or found[1][0] == _END:
            return False
        marker, at = found[1][0], found.end()
        if marker in _LONE:
            continue
        if marker in _FRAMES:
            is_progressive, components = marker in _PROGRESSIVE, _byte(data, at + 7)
        elif marker == _SCAN:
            scans += 1
            if scans > most:
                return True
            if not is_progressive and components and _byte(data, at + 2) == components:
                return False  # it has all components: the decoder ends with it
        at += int.from_bytes(data[at : at + 2], "big")
    return True


def plain_frame_hw(data: bytes) -> tuple[int, int] | None:
    """Return the size of the frame of a JPEG file of three 8-bit components in Huffman code.

    Args:
        data: of the file.

    Returns:
        Height and width; None for any other file, such as one with two frames before a scan, or a
        sequential one with more behind its first scan than the end of the image.

    >>> frame = bytes.fromhex("ffc00011" "08" "0003" "0005" "03" "011100" "021101" "031101")
    >>> plain_frame_hw(bytes.fromhex("ffd8") + frame + bytes.fromhex("ffda0002" "12ff00" "ffd9"))
    (3, 5)
    """
    at, found_hw, is_progressive = 0, None, False
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None or found[1][0] == _END:
            return None
        marker, at = found[1][0], found.end()
        if marker == _SCAN:
            # Pillow refuses a progressive file whose markers are damaged; so does OpenCV.
            return found_hw if is_progressive or _ends_with_its_scan(data, at) else None
        if marker in _LONE:
            continue
        if marker in _FRAMES:
            precision, components = _byte(data, at + 2), _byte(data, at + 7)
            if found_hw or marker not in _HUFFMAN or (precision, components) != (8, 3):
                return None
            is_progressive = marker in _PROGRESSIVE
            height, width = (int.from_bytes(data[at + n : at + n + 2], "big") for n in (3, 5))
            found_hw = height, width
        at += int.from_bytes(data[at : at + 2], "big")
    return None


def is_cut_off(data: bytes) -> bool:
    """Tell whether a JPEG file ends before the mark of its end; False where it has no segments.

    A thumbnail in a segment has an end of its own, so the mark is looked for from the scan on.

    Args:
        data: of the file, which begins with SOI.

    >>> is_cut_off(bytes.fromhex("ffd8ffda000212")), is_cut_off(bytes.fromhex("ffd8ffda0002ffd9"))
    (True, False)
    """
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return False
        marker = data[at + 1]
        if marker == _SCAN:
            return data.find(bytes((0xFF, _END)), at) < 0
        if marker == 0xFF:  # filling
            at += 1
        elif marker in _LONE or marker == _END:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return True


def _ends_with_its_scan(data: bytes, at: int) -> bool:
    """Tell whether nothing but the end of the file follows the scan whose marker ends at `at`."""
    found = _NO_RESTART.search(data, at + int.from_bytes(data[at : at + 2], "big"))
    return found is not None and found[1][0] == _END and found.end() == len(data)


def _byte(data: bytes, at: int) -> int:
    return data[at] if at < len(data) else 0
