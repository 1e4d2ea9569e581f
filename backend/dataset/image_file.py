"""The files of pictures: find, check, convert and name them."""

import hashlib
import io
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Final

from PIL import Image

from backend.errors import ImageNotFound, ImageTooLarge
from backend.label_studio.image_loader import ImageName, as_uploaded, opened
from backend.label_studio.requests import Task
from clearclip_core import RGBArray
from clearclip_core.images.preprocessing import to_rgb, upright_transposition

_DIGEST_BYTES: Final = 16

#: Format that trainers read -> the suffixes that its files may have; the first is chosen where one
#: has another.
_SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "BMP": (".bmp",),
    "JPEG": (".jpg", ".jpeg", ".jpe"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}

_NEVER_IN_NAMES: Final = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')
_LONGEST_NAME_BYTES: Final = 180


@dataclass(frozen=True)
class ImageFile:
    """A picture that was read as a whole."""

    #: Its file, if `is_original`, or a PNG of the picture as the model sees it where trainers see
    #: it otherwise or not at all: where EXIF turns it, with 16 bits or floating-point numbers, and
    #: in formats that they skip, such as GIF.
    content: bytes = field(repr=False)
    suffix: str
    size_hw: tuple[int, int]
    digest: str  # of the bytes of its file
    is_original: bool
    image: Image.Image = field(repr=False, compare=False)  # decoded

    @cached_property
    def rgb(self) -> RGBArray:
        """Its pixels, (H, W, 3) uint8, upright: few formats need them."""
        return to_rgb(self.image)


def read_image_file(content: bytes, max_megapixels: float, suffix: str = "") -> ImageFile:
    """Decode a picture as a whole; see `decode_image` for the errors."""
    with opened(content, max_megapixels) as image:
        known = _SUFFIXES.get(image.format or "", ())
        is_deep = image.mode.startswith(("I", "F"))
        is_original = bool(known) and not is_deep and upright_transposition(image) is None
        image.load()  # which fails where the file is truncated
        if not is_original:
            image, file = Image.fromarray(to_rgb(image)), io.BytesIO()
    digest = digest_of(content)
    if not is_original:
        image.save(file, "PNG", compress_level=3)
        content, known = file.getvalue(), (".png",)
    chosen = suffix if suffix.lower() in known else known[0]
    return ImageFile(content, chosen, image.size[::-1], digest, is_original, image)


def digest_of(content: bytes) -> str:
    """Return what tells a file from others, as hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()


def names_of(source: str, otherwise: str) -> tuple[tuple[str, ...], str]:
    """Return names for a picture, that before its upload first, and the suffix of its file."""
    named = ImageName.of(source[:4096])
    if named is None:
        return (otherwise,), ""
    file = PurePosixPath(named.file.replace("\\", "/"))
    suffix = file.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,5}", file.suffix) else ""
    files = filter(None, (named.uploaded_file, file.name))
    stems = dict.fromkeys(_clean(each.removesuffix(suffix)) for each in files)
    return tuple(filter(None, stems)) or (otherwise,), suffix


def folded(name: str) -> str:
    """Return a text that is equal for names that a file system may take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _clean(stem: str) -> str:
    name = _NEVER_IN_NAMES.sub("_", unicodedata.normalize("NFC", stem)).strip().strip(".")
    while len(name.encode()) > _LONGEST_NAME_BYTES:
        name = name[:-1]
    return name.rstrip(" .")


class LocalImages:
    """Finds pictures in a folder by the end of their addresses, the longest that fits.

    ``/data/local-files/?d=cars/a.png`` is ``cars/a.png`` in the folder, else ``a.png``. What is not
    there is downloaded. No file is over `max_file_mb` MiB. Of a name in `originals`, which an
    upload had before Label Studio has stored it, the only file is meant that has it.
    """

    def __init__(
        self,
        folder: Path | None,
        max_file_mb: int,
        download: Callable[[str, Task], bytes],
        originals: Collection[str] = (),
    ) -> None:
        self._folder = folder.resolve() if folder is not None else None
        self._max_file_mb = max_file_mb
        self._download = download
        self._originals: dict[str, list[Path]] = {name: [] for name in originals}
        if self._folder is not None and originals:
            for path in self._folder.rglob("*"):
                self._originals.get(as_uploaded(path.name), []).append(path)

    def read(self, source: str, task: Task) -> bytes:
        """Return the bytes of a picture's file, or raise a `TaskError`."""
        file = self.find(source)
        if file is None:
            try:
                return self._download(source, task)
            except ImageNotFound as error:
                where = f"It is not in {self._folder}. " if self._folder is not None else ""
                raise ImageNotFound(f"{where}{error}") from None
        try:
            if file.stat().st_size > self._max_file_mb << 20:
                raise ImageTooLarge(f"{file.name} is over the limit of {self._max_file_mb} MB.")
            return file.read_bytes()
        except OSError as error:
            raise ImageNotFound(f"{file.name} cannot be read: {error.strerror}.") from None

    def find(self, source: str) -> Path | None:
        """Return the file of a picture, never one outside of the folder; None for none."""
        named = ImageName.of(source[:4096])
        if self._folder is None or named is None:
            return None
        parts = [part for part in (*named.folders, named.file) if part != ".."]
        paths = ["/".join(parts[start:]) for start in range(len(parts))]
        same = self._originals.get(named.uploaded_file or "", ())
        if len(same) == 1:
            paths.append(same[0].relative_to(self._folder).as_posix())
        spelled = ((p, unicodedata.normalize("NFD", p)) for p in paths)  # as macOS has letters
        for path in chain.from_iterable(spelled):
            with suppress(OSError, ValueError):
                file = (self._folder / path).resolve()
                if file.is_file() and file.is_relative_to(self._folder):
                    return file
        return None
