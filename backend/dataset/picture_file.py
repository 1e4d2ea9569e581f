"""Check the file of a picture, and choose its name in a data set."""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from PIL import Image

from backend.label_studio.image_loader import RGBArray, decode_image
from clearclip_core.images.opening import open_image

_ORIENTATION: Final = 0x0112  # EXIF's tag; 1 is upright
_DIGEST_BYTES: Final = 16

#: Format of a file -> the suffixes that it may have; the first is chosen where it has another.
_SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe"),
    "JPEG2000": (".jp2", ".j2k"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}

_NEVER_IN_NAMES: Final = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')
_RESERVED: Final = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")  # on Windows
_LONGEST_NAME_BYTES: Final = 180


@dataclass(frozen=True)
class PictureFile:
    """A picture that was read as a whole.

    Attributes:
        content: bytes for the data set: those of its file, or a PNG of the upright picture where
            the file is turned by its EXIF orientation, which many trainers ignore.
        suffix: that fits the content.
        size_hw: height and width in px of the upright picture.
        digest: of the bytes of its file, as hexadecimal digits.
        is_original: whether `content` is its file.
        rgb: (H, W, 3) uint8, upright.
    """

    content: bytes = field(repr=False)
    suffix: str
    size_hw: tuple[int, int]
    digest: str
    is_original: bool
    rgb: RGBArray = field(repr=False, compare=False)


def read_picture_file(content: bytes, max_megapixels: float, suffix: str = "") -> PictureFile:
    """Decode a picture as a whole, so that a truncated one is found.

    Args:
        content: bytes of its file.
        max_megapixels: limit, in millions of pixels.
        suffix: that its file has had.

    Raises:
        ImageInvalid: it is no picture, or truncated.
        ImageTooLarge: it is over the limit.
    """
    rgb = decode_image(content, max_megapixels)
    with open_image(io.BytesIO(content)) as picture:
        known = _SUFFIXES.get(picture.format or "", (".png",))
        is_upright = picture.getexif().get(_ORIENTATION, 1) == 1
    height, width = rgb.shape[:2]
    digest = hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()
    if not is_upright:
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, "PNG", compress_level=3)
        content, known = file.getvalue(), (".png",)
    chosen = suffix if suffix.lower() in known else known[0]
    return PictureFile(content, chosen, (height, width), digest, is_upright, rgb)


def name_of(source: str, otherwise: str) -> tuple[str, str]:
    """Return the name of a picture by its address, and the suffix of its file.

    Args:
        source: address of the picture.
        otherwise: its name where the address has none.

    Returns:
        A name that every file system takes, without suffix; and the suffix, which may be empty.

    >>> name_of("/data/local-files/?d=caf%C3%A9/a%20b.JPG", "task-3")
    ('a b', '.JPG')
    >>> name_of("data:image/png;base64,AAAA", "task-3")
    ('task-3', '')
    """
    if source[:5].lower() == "data:":
        return otherwise, ""
    url = urlsplit(source[:4096])
    local = parse_qs(url.query).get("d") if url.path.endswith("/local-files/") else None
    path = local[0] if local else unquote(url.path)
    file = PurePosixPath(path.replace("\\", "/"))
    suffix = file.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,5}", file.suffix) else ""
    stem = file.name[: len(file.name) - len(suffix)]
    return _clean(stem) or otherwise, suffix


def folded(name: str) -> str:
    """Return a text that is equal for names that a file system may take for one.

    >>> folded("Cafe\\u0301") == folded("CAF\\u00c9")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _clean(stem: str) -> str:
    """Return a name without what some file system does not take."""
    name = _NEVER_IN_NAMES.sub("_", unicodedata.normalize("NFC", stem)).strip().strip(".")
    while len(name.encode()) > _LONGEST_NAME_BYTES:
        name = name[:-1]
    return f"_{name}" if _RESERVED.fullmatch(name) else name.rstrip(" .")
