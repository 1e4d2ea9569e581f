"""Tell that the file of an image ends too early, by its own marks."""

from __future__ import annotations

from typing import Final

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8"
_JPEG_END: Final = b"\xff\xd9"
_START_OF_SCAN: Final = 0xDA
#: Markers of JPEG that stand alone, without a length: TEM, RST0 to RST7, SOI and EOI.
_ALONE: Final = (0x01, *range(0xD0, 0xDA))


def is_truncated(content: bytes) -> bool:
    """Return whether a JPEG or PNG ends before the mark of its end.

    False for other formats, and for a file that follows neither. What comes behind the mark does
    not matter. JPEG: ITU-T T.81, annex B; PNG: ISO/IEC 15948, clauses 5 and 11.

    >>> scan = b"\\xff\\xd8\\xff\\xda\\0\\2..."
    >>> is_truncated(scan), is_truncated(scan + b"\\xff\\xd9")
    (True, False)
    """
    if content.startswith(_PNG):
        return _is_png_truncated(content)
    if content.startswith(_JPEG):
        return _is_jpeg_truncated(content)
    return _PNG.startswith(content) or _JPEG.startswith(content)


def _is_png_truncated(content: bytes) -> bool:
    at = len(_PNG)
    while at + 12 <= len(content):  # length, type and checksum of a chunk
        if content[at + 4 : at + 8] == b"IEND":
            return False
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    return True


def _is_jpeg_truncated(content: bytes) -> bool:
    """Skip segments up to the scan: a thumbnail in one of them has an end of its own."""
    at = len(_JPEG)
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            return False
        marker = content[at + 1]
        if marker == _START_OF_SCAN:
            return content.find(_JPEG_END, at) < 0
        if marker == 0xFF:  # filling
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return True
