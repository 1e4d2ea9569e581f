"""Open image files: the one place where bytes from outside become an image."""

import base64
import io
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy.typing as npt
from PIL import EpsImagePlugin, Image

from clearclip_core.images.jpeg import has_too_many_scans
from clearclip_core.images.preprocessing import RGBArray, to_rgb

ImageLike = Path | str | Image.Image | npt.NDArray[Any]  # what `read_rgb` takes

#: The formats that are read. Pillow decodes each of them by itself, without another program.
FORMATS: Final = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "TIFF", "WEBP")

#: Reads of a file in memory. Pillow reads each chunk, segment and comment by itself, in Python, and
#: so each run of a BMP file; a million reads take about three seconds.
_MAX_READS: Final = 1_000_000

# Pillow starts Ghostscript on PostScript. No format above leads there; other users of Pillow in
# this process must not lead there either.
EpsImagePlugin.gs_binary = False


class ImageWorkError(OSError):
    """An image file is made so that reading it takes very long."""


class _BoundedFile(io.BytesIO):
    """A file in memory that can be read `_MAX_READS` times."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise ImageWorkError(f"The image file has more than {_MAX_READS} parts.")
        return super().read(size)


def open_image(source: Path | str | BinaryIO, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Open an image by its header; nothing is decoded yet.

    Only the named formats are tried, so that a file of another format reaches none of Pillow's
    other decoders, whatever it calls itself.

    Args:
        source: path of a file, or its open bytes. How often a file in memory is read is bounded,
            also while it is decoded.
        formats: those of `FORMATS` that are expected.

    Returns:
        The image, to be used as a context manager.

    Raises:
        OSError: the file cannot be read, or (`PIL.UnidentifiedImageError`) is of no such format.
        ImageWorkError: reading it would take very long; decoding may raise it too.
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
    known = [each for each in formats if each in Image.OPEN]
    if not isinstance(source, io.BytesIO):
        return Image.open(source, formats=known)  # noqa: TID251
    content = source.getvalue()
    image = Image.open(_BoundedFile(content), formats=known)  # noqa: TID251
    if has_too_many_scans(image, content):
        raise ImageWorkError("The JPEG file has too many scans for its size.")
    return image


def read_rgb(image: ImageLike) -> RGBArray:
    """Read an image file, or convert an image or array: (H, W, 3) uint8 RGB, see `to_rgb`.

    Raises:
        OSError: the file cannot be read.
        ValueError: an array of another shape or dtype, or an empty image.
    """
    if not isinstance(image, Path | str):
        return to_rgb(image)
    with open_image(image) as opened:
        return to_rgb(opened)


_JPEG_QUALITY: Final = 80


def to_data_url(rgb: RGBArray) -> str:
    """Encode an (H, W, 3) uint8 image as the data URL of a JPEG.

    >>> import numpy as np
    >>> to_data_url(np.zeros((2, 2, 3), np.uint8))[:27]
    'data:image/jpeg;base64,/9j/'
    """
    return f"data:image/jpeg;base64,{base64.b64encode(to_jpeg(rgb)).decode()}"


def to_jpeg(rgb: RGBArray) -> bytes:
    """Encode an (H, W, 3) uint8 image as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
