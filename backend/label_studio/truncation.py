"""Tell that the file of an image ends too early, by its own marks."""

from __future__ import annotations

from typing import Final

from clearclip_core.images.jpeg import is_cut_off

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8"


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
        return is_cut_off(content)
    return _PNG.startswith(content) or _JPEG.startswith(content)


def _is_png_truncated(content: bytes) -> bool:
    at = len(_PNG)
    while at + 12 <= len(content):  # length, type and checksum of a chunk
        if content[at + 4 : at + 8] == b"IEND":
            return False
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    return True
