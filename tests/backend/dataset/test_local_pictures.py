"""Pictures among the files of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.dataset.picture_file import LocalPictures
from backend.errors import ImageInvalid, ImageNotFound, ImageTooLarge
from backend.label_studio.requests import Task

TASK = Task(1, 7, {})


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
        ("/data/local-files/?d=bikes/a.png", b"above"),
        ("https://host/cars/a.png?token=1", b"in cars"),
        ("s3://bucket/a.png", b"above"),
        ("/data/upload/7/%61.png", b"above"),
        ("data:;base64,eHk=", b"xy"),
    ],
)
def test_the_longest_end_of_the_address_wins(folder: Path, source: str, content: bytes) -> None:
    assert LocalPictures(folder, 1).read(source, TASK) == content


@pytest.mark.parametrize(
    "source",
    [
        "/b.png",
        "../secret.png",
        "/data/local-files/?d=../secret.png",
        "cars",
        "\0a.png",
        "http://[",
    ],
)
def test_nothing_else_is_read(folder: Path, source: str) -> None:
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    with pytest.raises(ImageNotFound, match="--picture-folder"):
        LocalPictures(folder, 1).read(source, TASK)
    assert LocalPictures(folder, 1).find("/link.png") is None


def test_limits_hold(folder: Path) -> None:
    (folder / "large.png").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(ImageTooLarge):
        LocalPictures(folder, 1).read("/large.png", TASK)
    with pytest.raises(ImageInvalid):
        LocalPictures(folder, 1).read("data:,", TASK)
