"""Pictures: names that every file system takes, files as a whole, files of this machine."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.dataset.image_file import LocalImages, names_of, read_image_file
from backend.errors import ImageInvalid, ImageNotFound, ImageTooLarge
from backend.label_studio.image_loader import opened
from backend.label_studio.requests import Task
from clearclip_core.images.preprocessing import decode_rgb
from tests.backend.dataset.drawn_tasks import picture_bytes, saved


@pytest.mark.parametrize(
    ("source", "names", "suffix"),
    [
        ("/data/upload/7/4f-a.b.JPG", ["4f-a.b"], ".JPG"),
        ("/data/upload/7/9b45e06c-long.png", ["long", "9b45e06c-long"], ".png"),
        ("/data/local-files/?d=9b45e06c-long.png", ["9b45e06c-long"], ".png"),
        ("https://host/..%2F..%2Fetc%2Fpasswd", ["passwd"], ""),
        ("https://host/...", ["task-3"], ""),
        ("/data/upload/7/a:b|c.png", ["a_b_c"], ".png"),
        ("/data/upload/7/.hidden.png", ["hidden"], ".png"),
        ("data:image/png;base64,AAAA/b.png", ["task-3"], ""),
        ("/data/upload/7/x.toolongsuffix", ["x.toolongsuffix"], ""),
    ],
)
def test_names_by_address(source: str, names: list[str], suffix: str) -> None:
    assert names_of(source, "task-3") == (tuple(names), suffix)


@pytest.mark.parametrize(
    ("kind", "suffix", "expected"),
    [("JPEG", ".JPEG", ".JPEG"), ("JPEG", ".png", ".jpg"), ("PNG", "", ".png")],
)
def test_suffixes_fit_the_content(kind: str, suffix: str, expected: str) -> None:
    content = picture_bytes(1, kind=kind)
    file = read_image_file(content, 1, suffix)
    assert (file.suffix, file.content, file.size_hw) == (expected, content, (40, 60))


RAMP = np.arange(0, 60_000, 1000, np.uint16).reshape(6, 10)


@pytest.mark.parametrize(
    "content",
    [
        saved(Image.fromarray(RAMP), "PNG"),
        saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
        saved(Image.fromarray((RAMP >> 8).astype(np.uint8)), "GIF"),
    ],
)
def test_what_trainers_cannot_read_is_a_png_of_what_the_model_sees(content: bytes) -> None:
    file = read_image_file(content, 1, ".tif")
    assert (file.suffix, file.is_original) == (".png", False)
    with Image.open(io.BytesIO(file.content)) as found, opened(content, 1) as original:
        assert (found.format, found.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(found), decode_rgb(original))
        grey = np.asarray(found)[..., 0].ravel()
        assert grey[0] == 0
        assert (np.diff(grey.astype(int)) >= 0).mean() > 0.9, "not white as a whole"


def test_truncated_and_large_files_are_refused(folder: Path) -> None:
    with pytest.raises(ImageInvalid, match="truncated"):
        read_image_file(picture_bytes(1)[:-100], 1)
    with pytest.raises(ImageTooLarge):
        read_image_file(picture_bytes(1), 0.001)
    (folder / "large.png").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(ImageTooLarge):
        LocalImages(folder, 1, download).read("/large.png", TASK)


TASK = Task(1, 7, {})


def download(source: str, task: Task) -> bytes:
    return b"from the network"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos/cars").mkdir(parents=True)
    (tmp_path / "photos/cars/a.png").write_bytes(b"in cars")
    (tmp_path / "photos/a.png").write_bytes(b"above")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("/data/local-files/?d=x/cars/a.png", b"in cars"),
        ("https://host/cars/a.png?token=1", b"in cars"),
        ("s3://bucket/a.png", b"above"),
        ("/data/upload/7/%61.png", b"above"),
        ("data:;base64,eHk=", b"from the network"),
    ],
)
def test_the_longest_end_of_the_address_wins(folder: Path, source: str, content: bytes) -> None:
    assert LocalImages(folder, 1, download).read(source, TASK) == content


@pytest.mark.parametrize(
    "source", ["/b.png", "../secret.png", "/data/local-files/?d=../secret.png", "cars", "http://["]
)
def test_nothing_else_is_read(folder: Path, source: str) -> None:
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    pictures = LocalImages(folder, 1, download)
    assert pictures.read(source, TASK) == b"from the network"
    assert pictures.find("/link.png") is None


def test_what_is_in_no_place_is_told_with_the_folder(folder: Path) -> None:
    def gone(source: str, task: Task) -> bytes:
        raise ImageNotFound("It is gone.")

    with pytest.raises(ImageNotFound, match=r"It is not in .*photos\. It is gone\."):
        LocalImages(folder, 1, gone).read("/b.png", TASK)


STORED = "/data/upload/7/0123abcd-b.png"  # of b.png


def write(folder: Path, *names: str, content: bytes = b"it") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def searched(folder: Path) -> LocalImages:
    def gone(source: str, task: Task) -> bytes:
        raise ImageNotFound("It is gone.")

    return LocalImages(folder, 1, gone, originals=["b.png"])


@pytest.mark.parametrize("name", ["x/y/0123abcd-b.png", "x/b.png", "b.png"])
def test_a_file_of_the_stored_or_the_original_name_lies_anywhere(folder: Path, name: str) -> None:
    write(folder, name)
    assert searched(folder).read(STORED, TASK) == b"it"


@pytest.mark.parametrize(
    "others",
    [
        ["set/.clearclip-dataset", "set/masks/b.png", "set/images/b.png"],
        ["set.partial/.clearclip-dataset.lock", "set.partial/images/b.png"],
        ["unpacked/pictures.jsonl", "unpacked/report.json", "unpacked/overlays/b.png"],
        ["masks/b.png", "VOC/SegmentationClass/b.png"],
    ],
    ids=["data set", "one being written", "one of a page", "foreign masks"],
)
def test_a_data_set_or_a_mask_is_no_picture(folder: Path, others: list[str]) -> None:
    write(folder, *others, content=b"a mask")
    with pytest.raises(ImageNotFound, match=r"^It is not in "):
        searched(folder).read(STORED, TASK)
    write(folder, "photos/b.png")
    assert searched(folder).read(STORED, TASK) == b"it"


def test_of_two_files_of_one_name_none_is_guessed(folder: Path) -> None:
    write(folder, "x/b.png", "y/b.png")
    assert searched(folder).read(STORED, TASK) == b"it", "they are one picture"
    write(folder, "y/b.png", content=b"another")
    with pytest.raises(ImageNotFound, match=r"^2 files in .* its name: x/b\.png, y/b\.png\. It is"):
        searched(folder).read(STORED, TASK)


def test_paths_of_windows_are_read(folder: Path) -> None:
    for source in (r"C:\photos\cars\a.png", r"/data/local-files/?d=x\cars\a.png"):
        assert LocalImages(folder, 1, download).read(source, TASK) == b"in cars"
