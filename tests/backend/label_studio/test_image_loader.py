"""Images from every place that a task may name, over real HTTP, and files that are none."""

import base64
import io
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
import pytest
from PIL import Image, ImageOps

from backend.errors import ImageInvalid, ImageNotFound, ImageRefused, ImageTooLarge
from backend.label_studio import image_loader
from backend.label_studio.download import LabelStudioFiles
from backend.label_studio.image_loader import ImageCacheStats, ImageReader, read_size
from backend.label_studio.requests import Task
from backend.settings import load_settings
from clearclip_core import RGBArray
from tests.backend.fakes.local_server import Answer, Asked, LocalServer

TOKEN = "c0ffee" * 6 + "beef"
TASK = Task(id=3, project_id=7, data={})

#: 6 wide, 4 high: left half red, right half blue, the top row white.
PIXELS = np.zeros((4, 6, 3), dtype=np.uint8)
PIXELS[:, :3] = (255, 0, 0)
PIXELS[:, 3:] = (0, 0, 255)
PIXELS[0] = 255


def _file(picture: Image.Image | None = None, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (picture or Image.fromarray(PIXELS)).save(file, kind, **options)
    return file.getvalue()


def _route(asked: Asked) -> Answer:
    """Label Studio's ways to hand out a file."""
    if asked.authorization != f"Token {TOKEN}":
        return Answer(401)
    parts = urlsplit(asked.path)
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    uri = base64.urlsafe_b64decode(query.get("fileuri", "")).decode()
    is_there = (
        parts.path == "/data/upload/7/1b2-a%20b.png"  # must come percent-encoded
        or (parts.path == "/data/local-files/" and query.get("d") == "ordner/bär & co.png")
        or (parts.path == "/tasks/3/presign/" and uri.endswith("://bucket/a ü.png"))
    )
    return Answer(body=_file()) if is_there else Answer(404)


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer(_route) as server:
        yield server


def _reader(url: str, **limits: Any) -> ImageReader:
    settings = load_settings(
        label_studio_url=url, label_studio_api_key=TOKEN, allowed_hosts="127.0.0.0/8", **limits
    )
    return ImageReader(LabelStudioFiles.from_settings(settings), settings)


def decoded(content: bytes) -> RGBArray:
    """Read the file of an image, of a megapixel at most."""
    reader = _reader("http://127.0.0.1:1", max_image_megapixels=1)
    return reader.read(f"data:;base64,{base64.b64encode(content).decode()}", TASK)


@pytest.mark.parametrize(
    "source",
    [
        "/data/upload/7/1b2-a b.png",
        "/data/local-files/?d=" + quote("ordner/bär & co.png"),
        "/data/local-files/?d=" + quote("ordner/bär & co.png", safe=""),
        "{server}/data/local-files/?d=" + quote("ordner/bär & co.png"),
        "s3://bucket/a ü.png",
        "azure-blob://bucket/a ü.png",
        "/tasks/3/presign/?fileuri="
        + base64.urlsafe_b64encode(b"s3://bucket/a \xc3\xbc.png").decode(),
        " /data/upload/7/1b2-a b.png ",
    ],
)
def test_files_on_label_studio(server: LocalServer, source: str) -> None:
    rgb = _reader(server.url).read(source.replace("{server}", server.url), TASK)
    np.testing.assert_array_equal(rgb, PIXELS)


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64," + base64.b64encode(_file()).decode(),
        "DATA:image/png;charset=x;BASE64," + quote(base64.b64encode(_file()).decode()),
        "data:image/png," + quote(_file()),
    ],
)
def test_data_urls(url: str) -> None:
    reader = _reader("http://127.0.0.1:1", max_image_mb=1)
    np.testing.assert_array_equal(reader.read(url, TASK), PIXELS)
    with pytest.raises(ImageTooLarge, match="limit of 1 MB"):
        reader.read(url + "A" * (2 << 20), TASK)
    with pytest.raises(ImageInvalid, match="holds no image"):
        reader.read(url.partition(",")[0], TASK)


def test_files_of_this_machine_are_never_read(server: LocalServer, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_file())
    sources = [str(path), f"file://{path}", f"file:{path}", f"FILE://{path}", "a.png", "../a.png"]
    sources += ["//127.0.0.1/data/a.png", "ftp://127.0.0.1/a.png", "", "/api/projects/"]
    sources += ["/etc/passwd", "data/upload/a.png", "/data/upload/..", "/data/upload/..%5capi"]
    sources += ["/data/upload/%252e%252e/x", "/data/upload\\..\\..\\api"]
    sources += [f"/data/local-files/?d={each}" for each in ("%2e%2e%2fetc%2fpasswd", "a/../../b")]
    for source in sources:
        with pytest.raises(ImageNotFound, match="no address of an image"):
            _reader(server.url).read(source, TASK)
    assert server.asked == []


@pytest.mark.parametrize(
    ("source", "error", "sentence"),
    [
        ("/data/upload/7/gone.png", ImageNotFound, r"^/data/upload/7/gone\.png is not handed out"),
        ("s3://other/gone.png", ImageNotFound, r"^s3://other/gone\.png is not handed out"),
        ("{server}/data/x.png?d=x.png&sig=1", ImageNotFound, r"/x\.png\?d=x\.png is not handed"),
        ("http://127.0.0.1:1/a.png", ImageRefused, "cannot be reached"),
        ("http://[/a.png", ImageNotFound, "no http"),
        ("https:///a.png", ImageNotFound, "no http"),
    ],
)
def test_images_that_are_not_there(
    server: LocalServer, source: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence) as caught:
        _reader(server.url).read(source.replace("{server}", server.url), TASK)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int) -> None:
    """As a viewer shows them: orientation 6 is turned clockwise, height and width swap."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = _file(exif=exif)
    with Image.open(io.BytesIO(content)) as picture:
        shown = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(decoded(content), shown)
    assert read_size(content, 1) == shown.shape[:2]


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_truncated_files(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = _file(Image.fromarray(noise), kind)
    for share in (0, 0.02, 0.5, 0.9):
        with pytest.raises(ImageInvalid):
            decoded(content[: int(len(content) * share)])


def test_formats_that_run_programs_are_refused() -> None:
    with pytest.raises(ImageInvalid, match=r"not an image that can be read; expected .*JPEG"):
        decoded(_file(Image.new("RGB", (4, 4)), "EPS"))


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no pixels."""
    content = bytearray(_file())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize("side", [2_000, 20_000, 60_000])
def test_bombs_are_refused_by_their_header(side: int) -> None:
    with pytest.raises(ImageTooLarge, match="over the limit of 1 MP"):
        decoded(_png_header(side, side))


def _tiled_tiff(tile_px: int) -> bytes:
    """A grey TIFF of 16 x 16 pixels in one tile, which is mostly outside."""
    pixels = zlib.compress(b"\7" * tile_px**2)
    short, long = 3, 4
    entries = [
        *((256, short, 16), (257, short, 16), (258, short, 8), (259, short, 8)),
        *((262, short, 1), (277, short, 1), (322, long, tile_px), (323, long, tile_px)),
        *((324, long, 8 + 2 + 12 * 10 + 4), (325, long, len(pixels))),
    ]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    return head + directory + struct.pack("<I", 0) + pixels


def test_bombs_in_the_tiles_of_a_tiff_are_refused_too() -> None:
    assert decoded(_tiled_tiff(32)).tolist() == [[[7, 7, 7]] * 16] * 16
    with pytest.raises(ImageTooLarge, match="tiles of the image have 2048 x 2048 pixels, 4 MP"):
        decoded(_tiled_tiff(2048))


def test_a_picture_that_is_open_is_fetched_once(server: LocalServer) -> None:
    reader = _reader(server.url)
    source = "/data/upload/7/1b2-a b.png"
    for _ in range(3):
        rgb = reader.read_cached(source, TASK)
        np.testing.assert_array_equal(rgb, PIXELS)
        assert not rgb.flags.writeable
    reader.read_cached(f"  {source} ", TASK)
    assert len(server.asked) == 1
    assert reader.cache_stats == ImageCacheStats(3, 1, PIXELS.nbytes, 256 << 20)
    reader.read(source, TASK)  # as a batch does, which is not served from there
    reader.read_cached("s3://bucket/a ü.png", TASK)
    for _ in range(2):  # what a storage has is one task's, and errors are not kept
        with pytest.raises(ImageNotFound):
            reader.read_cached("s3://bucket/a ü.png", Task(id=4, project_id=8, data={}))
    assert len(server.asked) == 5


def test_a_small_picture_is_kept_beside_that_of_the_full_size() -> None:
    reader = _reader("http://127.0.0.1:1")
    file = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(file, "JPEG")
    source = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    for _ in range(2):
        assert reader.read_small(source, TASK, 15).shape == (10, 15, 3)
        assert reader.read_cached(source, TASK).shape == (40, 60, 3)
    assert (reader.cache_stats.hits, reader.cache_stats.misses) == (2, 2)


def test_a_large_picture_that_was_predicted_is_shown_from_its_copy(tmp_path: Path) -> None:
    files = [_file(Image.new("RGB", (2000, 1000), colour)) for colour in ("red", "blue")]
    red, blue = (f"data:image/png;base64,{base64.b64encode(each).decode()}" for each in files)
    reader = _reader("http://127.0.0.1:1", model_dir=str(tmp_path))
    reader.read_to_predict(red, TASK)
    reader.read(blue, TASK)
    for source, shape in ((red, (250, 500, 3)), (blue, (1000, 2000, 3))):
        assert reader.read_small(source, TASK, 480).shape == shape
    assert reader.read_small(red, TASK, 1600).shape == (1000, 2000, 3)
    assert reader.read_small(red, TASK, 144)[100, 100].tolist() == pytest.approx([255, 0, 0], abs=3)


@pytest.mark.parametrize(("limit_mb", "hits"), [(0, 0), (1, 1)])
def test_what_is_kept_is_bounded_in_bytes(limit_mb: int, hits: int) -> None:
    reader = _reader("http://127.0.0.1:1", picture_cache_mb=limit_mb)
    for _ in range(2):
        reader.read_cached("data:image/png;base64," + base64.b64encode(_file()).decode(), TASK)
    assert reader.cache_stats.hits == hits


def test_images_are_decoded_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_loader, "_DECODING_PX", 60)
    sides, at_once, lock = [(6, 4)] * 4 + [(40, 30)] + [(6, 4)] * 4, list[Any](), threading.Lock()
    now = list[tuple[int, int]]()

    def decode(picture: Image.Image, _least_side_px: int | None) -> Any:
        with lock:
            now.append(picture.size)
            at_once.append([*now])
        time.sleep(0.05)
        with lock:
            now.remove(picture.size)
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(image_loader, "decode_rgb", decode)
    files = [base64.b64encode(_file(Image.new("RGB", size))).decode() for size in sides]
    reader = _reader("http://127.0.0.1:1")
    with ThreadPoolExecutor(len(files)) as pool:
        list(pool.map(lambda file: reader.read(f"data:image/png;base64,{file}", TASK), files))
    assert [(40, 30)] in at_once
    assert max(map(len, at_once)) == 2
    assert all(len(each) == 1 for each in at_once if (40, 30) in each)


def test_the_size_is_read_without_the_pixels_but_within_the_limit() -> None:
    cut_off = _file(Image.new("RGB", (600, 400)))[:200]
    assert read_size(cut_off, 1) == (400, 600)
    with pytest.raises(ImageTooLarge):
        read_size(cut_off, 0.1)
    with pytest.raises(ImageInvalid):
        read_size(b"no image", 1)
