"""Open image files: the one place where bytes from outside become an image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO, Final

from PIL import EpsImagePlugin, Image, UnidentifiedImageError

#: The formats that are read. Pillow decodes each of them by itself, without another program.
FORMATS: Final = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")

#: Bytes of the header of a PPM file. Pillow reads it byte by byte, comments of any length included.
_PPM_HEADER: Final = 1 << 16
_PPM_MAGIC: Final = re.compile(rb"P[0-9Ffy]")
_COMMENT: Final = re.compile(rb"#[^\r\n]*")

# Pillow starts Ghostscript on PostScript. No format above leads there; other users of Pillow in
# this process must not lead there either.
EpsImagePlugin.gs_binary = False


def open_image(source: Path | str | BinaryIO, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Open an image by its header; nothing is decoded yet.

    Only the named formats are tried, so that a file of another format reaches none of Pillow's
    other decoders, whatever it calls itself.

    Args:
        source: path of a file, or its open bytes.
        formats: those of `FORMATS` that are expected.

    Returns:
        The image, to be used as a context manager.

    Raises:
        OSError: the file cannot be read, or (`PIL.UnidentifiedImageError`) is of no such format.
        PIL.Image.DecompressionBombError: it has more than twice as many pixels as Pillow's limit.

    >>> import io
    >>> try:
    ...     open_image(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0"))
    ... except OSError:
    ...     print("no image of these formats")
    no image of these formats
    """
    Image.init()
    _check_ppm(source)
    # MPO comes with JPEG's decoder, and a Pillow without AVIF has no decoder for it.
    return Image.open(source, formats=[each for each in formats if each in Image.OPEN])


def _check_ppm(source: Path | str | BinaryIO) -> None:
    """Refuse a PPM file whose comments push its size beyond the first bytes.

    Raises:
        PIL.UnidentifiedImageError: it is one.
    """
    if isinstance(source, Path | str):
        with Path(source).open("rb") as file:
            head = file.read(_PPM_HEADER)
    else:
        at = source.tell()
        head = source.read(_PPM_HEADER)
        source.seek(at)
    if not _PPM_MAGIC.match(head) or len(head) < _PPM_HEADER:
        return
    needed = 3 if head[1:2] in b"14" else 4  # bitmaps have no largest value
    if len(_COMMENT.sub(b"", head).split(maxsplit=4)) < needed:
        raise UnidentifiedImageError("The header of the PPM file is too long.")
