"""The files of pictures: find, check, convert and name them."""

from __future__ import annotations

import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Final

from PIL import Image

from backend.dataset.output_folder import IMAGES_FILE, LOCK, MARKER, REPORT_FILE
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
_LONGEST_ADDRESS: Final = 4096

#: Folders beside pictures whose files have the same names and are none.
_MASK_FOLDERS: Final = ("masks", "SegmentationClass", "SegmentationObject")


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
    """Decode a picture as a whole; see `opened` for the errors."""
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
    named = ImageName.of(source[:_LONGEST_ADDRESS])
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
    there is downloaded.

    Args:
        folder: the folder of this machine; None: all are downloaded.
        max_file_mb: limit of a file in MiB.
        download: reads the file of an address from elsewhere, or raises a `TaskError`.
        originals: names that files had before they were uploaded, each of one upload. With these,
            also empty, a file of the stored or of the original name may lie anywhere below the
            folder, but not in a data set or in a folder of masks. Several that differ are none.
            None: only the end of the address counts.
    """

    def __init__(
        self,
        folder: Path | None,
        max_file_mb: int,
        download: Callable[[str, Task], bytes],
        originals: Collection[str] | None = None,
    ) -> None:
        self._folder = folder.resolve() if folder is not None else None
        self._max_file_mb = max_file_mb
        self._download = download
        self._originals = frozenset(originals or ())
        self._named: dict[str, list[Path]] = {}  # name, or what uploads make of it -> files
        if self._folder is not None and originals is not None:
            for path in _pictures_below(self._folder):
                for name in {unicodedata.normalize("NFC", path.name), as_uploaded(path.name)}:
                    self._named.setdefault(name, []).append(path)

    def read(self, source: str, task: Task) -> bytes:
        """Return the bytes of a picture's file, or raise a `TaskError`."""
        file = self.find(source)
        if file is None:
            try:
                return self._download(source, task)
            except ImageNotFound as error:
                raise ImageNotFound(f"{self._say_where(source)}{error}") from None
        try:
            if file.stat().st_size > self._max_file_mb << 20:
                raise ImageTooLarge(f"{file.name} is over the limit of {self._max_file_mb} MB.")
            return file.read_bytes()
        except OSError as error:
            raise ImageNotFound(f"{file.name} cannot be read: {error.strerror}.") from None

    def find(self, source: str) -> Path | None:
        """Return the file of a picture, never one outside of the folder; None for none."""
        named = ImageName.of(source[:_LONGEST_ADDRESS])
        if self._folder is None or named is None:
            return None
        parts = [part for part in _pieces(named) if part not in ("", "..")]
        for start in range(len(parts)):
            path = "/".join(parts[start:])
            for spelled in (path, unicodedata.normalize("NFD", path)):  # as macOS has letters
                file = self._checked(self._folder / spelled)
                if file is not None:
                    return file
        found = self._files_of(named)
        return found[0] if len(found) == 1 else None

    def _checked(self, path: Path) -> Path | None:
        """Return a file itself, if it is one and lies in the folder."""
        assert self._folder is not None, "find has checked it"
        with suppress(OSError, ValueError):
            file = path.resolve()
            if file.is_file() and file.is_relative_to(self._folder):
                return file
        return None

    def _files_of(self, named: ImageName) -> list[Path]:
        """Return the different files that have a picture's stored name, else its original one."""
        *folders, name = _pieces(named)
        paths = self._named.get(name, [])
        if not paths and named.uploaded_file in self._originals:
            paths = self._named.get(named.uploaded_file, [])
        files = [file for path in paths if (file := self._checked(path)) is not None]
        if len(files) < 2:
            return files
        return _different(_in_folders(files, folders))

    def _say_where(self, source: str) -> str:
        """Return a sentence on what the folder has of a picture; empty without a folder."""
        named = ImageName.of(source[:_LONGEST_ADDRESS])
        if self._folder is None:
            return ""
        files = self._files_of(named) if named is not None else []
        if len(files) > 1:
            shown = ", ".join(each.relative_to(self._folder).as_posix() for each in files[:3])
            return f"{len(files)} files in {self._folder} have its name: {shown}. "
        return f"It is not in {self._folder}. "


def _pieces(named: ImageName) -> list[str]:
    """Return the folders and the file of an address, also of Windows."""
    return "/".join((*named.folders, named.file)).replace("\\", "/").split("/")


def _in_folders(files: Sequence[Path], folders: Sequence[str]) -> list[Path]:
    """Return the files that lie in folders of the same names as an address, the most of them."""

    def shared(file: Path) -> int:
        pairs = zip(file.parent.parts[::-1], folders[::-1], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    most = max(map(shared, files))
    return [file for file in files if shared(file) == most]


def _different(files: Sequence[Path]) -> list[Path]:
    """Return the first of the files that have the same bytes, and those that have others."""
    if len(files) < 2:
        return [*files]
    found: dict[bytes, Path] = {}
    for file in files:
        with suppress(OSError):
            found.setdefault(hashlib.blake2b(file.read_bytes()).digest(), file)
    return list(found.values())


def _pictures_below(folder: Path) -> Iterator[Path]:
    """Iterate over the files below a folder, without those of data sets and of masks."""
    for place, folders, files in os.walk(folder):
        root = Path(place)
        if root != folder and (root.name in _MASK_FOLDERS or _is_data_set(files)):
            folders.clear()
            continue
        folders.sort()
        yield from (root / name for name in sorted(files))


def _is_data_set(files: Collection[str]) -> bool:
    """Return whether a folder with these files is a data set, unpacked, or being written."""
    return MARKER in files or LOCK in files or {IMAGES_FILE, REPORT_FILE}.issubset(files)
