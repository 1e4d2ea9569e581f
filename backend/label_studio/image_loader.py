"""The images of tasks as RGB arrays."""

import base64
import copy
import hashlib
import io
import re
import struct
import threading
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, unquote_to_bytes, urlsplit

from cachetools import TTLCache
from msgspec import Struct
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

from backend.errors import ImageInvalid, ImageTooLarge
from backend.label_studio.download import LabelStudioFiles
from backend.label_studio.requests import Task
from backend.label_studio.small_images import SIDE_PX, SmallImages
from backend.settings import Settings
from clearclip_core import RGBArray
from clearclip_core.images.opening import FORMATS, ImageWorkError, open_image
from clearclip_core.images.preprocessing import decode_rgb, upright_transposition

#: An address and the task that names it -> (H, W, 3) uint8; raises `TaskError`.
ReadImage = Callable[[str, Task], RGBArray]

#: Is told the id of a task before an image of it is read; raises `TaskDeadly`.
BeginTask = Callable[[int], None]

CACHE_TTL_S = 600.0  # age in seconds up to which a cached image stands for the file at its address

#: Pixels of all images that are decoded at once, or it is one. A pixel takes 6 to 24 bytes until it
#: is RGB, most in a TIFF of floats.
_DECODING_PX: Final = 100_000_000

_STORAGES = ("s3://", "gs://", "azure-blob://")
#: Transpositions that swap height and width.
_SWAPPING = (
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)
#: What Pillow raises for files that are damaged, beside its own errors.
UNDECODABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class ImageCacheStats(Struct, frozen=True):
    """Hits, misses and bytes of the cache for images that annotators have open."""

    hits: int
    misses: int
    bytes: int
    limit_bytes: int


class ImageReader:
    """Reads the images of tasks from Label Studio, its storages and other hosts."""

    def __init__(self, files: LabelStudioFiles, settings: Settings) -> None:
        self._files = files
        self._max_file_mb = settings.max_image_mb
        self._max_megapixels = settings.max_image_megapixels
        self._kept: TTLCache[str, RGBArray] = TTLCache(
            settings.picture_cache_mb << 20, CACHE_TTL_S, getsizeof=lambda rgb: rgb.nbytes
        )
        self.copies = SmallImages(settings.model_dir / "pictures", settings.picture_days)
        self._room = _DecodingRoom(_DECODING_PX)
        self._lock = threading.Lock()
        self._hits = self._misses = 0
        self._begin: BeginTask = lambda _task: None

    def telling(self, begin: BeginTask) -> "ImageReader":
        """Return a reader, with the same cache, that tells before it reads a file of a task."""
        teller = copy.copy(self)
        teller._begin = begin
        return teller

    def read(self, source: str, task: Task) -> RGBArray:
        """Read one image of a task as (H, W, 3) uint8, upright as its EXIF orientation says.

        `source` is a path on Label Studio such as ``/data/upload/...``, an ``http://``,
        ``https://`` or ``data:`` URL, or an address in a storage, which Label Studio resolves by
        the task's id: ``s3://``, ``gs://``, ``azure-blob://``. Files of this machine are never
        read.
        """
        return self._decode(self.read_file(source, task))

    def read_to_predict(self, source: str, task: Task) -> RGBArray:
        """Read as `read` does, and keep a small copy of a large image, for those who look at it."""
        rgb = self.read(source, task)
        self.copies.keep(_key(self._address(source.strip(), task)), rgb)
        return rgb

    def read_file(self, source: str, task: Task) -> bytes:
        """Read the file of one image of a task, without decoding it."""
        _tell(self._begin, task)
        source = source.strip()
        return self._fetch(self._address(source, task), source)

    def read_size(self, source: str, task: Task) -> tuple[int, int]:
        """Read the upright height and width in px of an image; its pixels are not decoded."""
        return read_size(self.read_file(source, task), self._max_megapixels)

    def read_cached(self, source: str, task: Task) -> RGBArray:
        """Read an image that an annotator has open, read-only, through a cache, for the next click.

        Batches use `read`: their images would evict those that are needed again. The key is the
        full address. For a storage it includes the task, so that a project does not see an image
        that only another project may see.
        """
        return self._read_kept(source, task, None)

    def read_small(self, source: str, task: Task, side_px: int) -> RGBArray:
        """Read an image to be shrunk to a long side of `side_px`, read-only, as `read_cached` does.

        A JPEG file has the smallest of its size, a half, a quarter and an eighth that is no smaller
        than that, and others their size, see `decode_rgb`. Where a small copy is large enough, it
        is that.
        """
        if side_px <= SIDE_PX:
            copy = self.copies.read(_key(self._address(source.strip(), task)))
            if copy is not None:
                return copy
        return self._read_kept(source, task, side_px)

    def _read_kept(self, source: str, task: Task, side_px: int | None) -> RGBArray:
        source = source.strip()
        address = self._address(source, task)
        key = f"{_key(address)} {side_px or ''}"
        with self._lock:
            kept = self._kept.get(key)
            self._hits += kept is not None
            self._misses += kept is None
        if kept is not None:
            return kept
        rgb = self._decode(self._fetch(address, source), side_px)
        rgb.flags.writeable = False
        if rgb.nbytes <= self._kept.maxsize:
            with self._lock:
                self._kept[key] = rgb
        return rgb

    @property
    def cache_stats(self) -> ImageCacheStats:
        """The state of the cache of `read_cached`."""
        with self._lock:
            size, limit = int(self._kept.currsize), int(self._kept.maxsize)
            return ImageCacheStats(self._hits, self._misses, size, limit)

    def _address(self, source: str, task: Task) -> str:
        """Return the full address: a ``data:`` URL, or the URL to download."""
        scheme = source[:16].lower()
        if scheme.startswith(("data:", "http://", "https://")):
            return source
        if scheme.startswith(_STORAGES):
            return self._files.storage_url(source, task.id, task.project_id)
        return self._files.file_url(source)

    def _decode(self, content: bytes, side_px: int | None = None) -> RGBArray:
        """Decode an image, once there is memory for it beside those that are decoded now.

        With `side_px`, a JPEG file is decoded just large enough for a long side of that.
        """
        with opened(content, self._max_megapixels) as image, self._room.taken(*image.size):
            return decode_rgb(image, side_px)

    def _fetch(self, address: str, source: str) -> bytes:
        if address[:5].lower() == "data:":
            return read_data_url(address, self._max_file_mb)
        return self._files.download(address, called="" if address == source else source)


def _key(address: str) -> str:
    """Return what an image is kept by: a ``data:`` URL may be megabytes long."""
    return hashlib.sha256(address.encode()).hexdigest()


class _DecodingRoom:
    """Bounds the pixels of the images that are decoded at once; each waits for those before it."""

    def __init__(self, most_px: int) -> None:
        self._most_px = self._free_px = most_px
        self._turn = threading.Lock()  # or small images would pass a large one for ever
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, width: int, height: int) -> Iterator[None]:
        """Hold the room for an image, which is decoded within the block."""
        size_px = min(self._most_px, width * height)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free_px >= size_px)
            self._free_px -= size_px
        try:
            yield
        finally:
            with self._changed:
                self._free_px += size_px
                self._changed.notify()


def telling(read_image: ReadImage, begin: BeginTask) -> ReadImage:
    """Return a function that tells the task of an image before it reads that."""

    def read(source: str, task: Task) -> RGBArray:
        _tell(begin, task)
        return read_image(source, task)

    return read


def _tell(begin: BeginTask, task: Task) -> None:
    if isinstance(task.id, int):  # a request may give texts
        begin(task.id)


def read_size(content: bytes, max_megapixels: float) -> tuple[int, int]:
    """Read the upright height and width in px of an image from the header of its file."""
    with opened(content, max_megapixels) as image:
        if isinstance(image, TiffImageFile):
            image.load()  # which turns it
        turned = upright_transposition(image) in _SWAPPING
        return (image.width, image.height) if turned else (image.height, image.width)


@contextmanager
def opened(content: bytes, max_megapixels: float) -> Iterator[Image.Image]:
    """Open an image within the limit; what goes wrong while it is read is told in a sentence."""
    try:
        with open_image(io.BytesIO(content)) as image:
            _check(image, max_megapixels)
            yield image
    except ImageWorkError as error:
        raise ImageTooLarge(f"{error} Save it with another program.") from None
    except UnidentifiedImageError:
        raise ImageInvalid(
            f"The file is not an image that can be read; expected {', '.join(FORMATS)}."
        ) from None
    except Image.DecompressionBombError:
        raise ImageTooLarge(f"The image is over the limit of {max_megapixels:g} MP.") from None
    except UNDECODABLE:
        raise ImageInvalid("The image file is damaged or truncated.") from None


def _check(image: Image.Image, max_megapixels: float) -> None:
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    tile = tags.get(TILEWIDTH, 0), tags.get(TILELENGTH, 0)
    for thing, (width, height) in (("image has", image.size), ("tiles of the image have", tile)):
        megapixels = width * height / 1e6
        if megapixels > max_megapixels:
            raise ImageTooLarge(
                f"The {thing} {width} x {height} pixels, {megapixels:.0f} MP, "
                f"over the limit of {max_megapixels:g} MP."
            )


def read_data_url(url: str, max_file_mb: int) -> bytes:
    """Return the bytes that a ``data:`` URL holds.

    Raises:
        ImageInvalid: it holds none.
        ImageTooLarge: it is over the limit, in MiB.
    """
    head, comma, data = url.partition(",")
    try:
        content = unquote_to_bytes(data)
        if head.lower().rstrip().endswith(";base64"):
            content = base64.b64decode(content)
    except ValueError:
        content = b""
    if not comma or not content:
        raise ImageInvalid("The data: URL holds no image.")
    if len(content) > max_file_mb << 20:
        raise ImageTooLarge(f"The image in the data: URL is over the limit of {max_file_mb} MB.")
    return content


#: What Label Studio puts before the name of an uploaded file: the beginning of a UUID.
_UPLOAD_PREFIX: Final = re.compile(r"[0-9a-f]{8}-(?=.)")
_UPLOADS: Final = "/data/upload/"


@dataclass(frozen=True)
class ImageName:
    """The path of an image in its address, decoded, in composed letters (Unicode NFC)."""

    folders: tuple[str, ...]  # the outermost first
    file: str
    uploaded_file: str | None = None  # the name before it was uploaded, see `as_uploaded`

    @classmethod
    def of(cls, source: str) -> "ImageName | None":
        """Read the name in an address; None where it has none, such as a ``data:`` URL."""
        source = source.strip()
        if source[:5].lower() == "data:":
            return None

        try:
            parts = urlsplit(source)
        except ValueError:
            return None

        path = unquote(parts.path)
        if path.rstrip("/").endswith("/data/local-files"):
            path = "".join(parse_qs(parts.query).get("d", [""])[:1])
        elif parts.scheme not in ("", "http", "https"):
            path = f"{parts.netloc}/{path}"  # a bucket is a folder

        pieces = [each for each in unicodedata.normalize("NFC", path).split("/") if each]
        if not pieces:
            return None

        uploaded = None
        if _UPLOADS in path:
            match = _UPLOAD_PREFIX.match(pieces[-1])
            uploaded = pieces[-1][match.end() :] if match else None
        return cls(tuple(pieces[:-1]), pieces[-1], uploaded)


def as_uploaded(file: str) -> str:
    r"""Return a file name as Label Studio stores an uploaded one: Django's ``get_valid_filename``.

    Spaces become underscores, and what is neither letter, digit, ``-``, ``_`` nor ``.`` goes.
    """
    return re.sub(r"[^-\w.]", "", file.strip().replace(" ", "_"))
