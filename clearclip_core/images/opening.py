"""Open image files: the one place where bytes from outside become an image."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final

from PIL import EpsImagePlugin, Image

#: The formats that are read. Pillow decodes each of them by itself, without another program.
FORMATS: Final = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")

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
    # MPO comes with JPEG's decoder, and a Pillow without AVIF has no decoder for it.
    return Image.open(source, formats=[each for each in formats if each in Image.OPEN])
