"""Small copies of large pictures on disk, and when they are not there any more."""

import time
from pathlib import Path

import numpy as np
import pytest

from backend.label_studio.small_images import SmallImages

LARGE = np.zeros((1200, 2000, 3), np.uint8)
LARGE[:, 1000:] = (200, 40, 40)

DAY_S = 86_400.0


class Clock:
    """Tells how long after now it is."""

    after_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.after_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def images(tmp_path: Path, clock: Clock) -> SmallImages:
    return SmallImages(tmp_path / "pictures", days=2, clock=clock)


def files(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.glob("pictures/*"))


def test_a_copy_shows_what_the_picture_shows(images: SmallImages, tmp_path: Path) -> None:
    images.keep("a", LARGE)
    copy = images.read("a")
    assert copy is not None
    assert copy.shape == (300, 500, 3)  # a quarter: an eighth would be shorter than 480 px
    assert np.abs(copy[::30, 20::40].astype(int) - LARGE[::120, 80::160]).max() < 6
    assert files(tmp_path) == ["a.jpg"]


def test_a_small_picture_and_another_key_have_no_copy(images: SmallImages) -> None:
    images.keep("a", LARGE[::2, ::2])
    images.keep("b", LARGE)
    assert images.read("a") is None
    assert images.read("../b") is None


def test_a_copy_ends_after_its_days(images: SmallImages, clock: Clock, tmp_path: Path) -> None:
    images.keep("a", LARGE)
    clock.after_s = 1.9 * DAY_S
    images.delete_old()
    assert images.read("a") is not None
    clock.after_s = 2.1 * DAY_S
    assert images.read("a") is None
    images.delete_old()
    assert files(tmp_path) == []


def test_no_days_keep_none_and_delete_what_is_there(images: SmallImages, tmp_path: Path) -> None:
    images.keep("a", LARGE)
    off = SmallImages(tmp_path / "pictures", days=0)
    off.keep("b", LARGE)
    assert off.read("a") is None
    assert files(tmp_path) == ["a.jpg"]
    off.delete_old()
    assert files(tmp_path) == []


def test_the_oldest_go_where_there_are_too_many(tmp_path: Path) -> None:
    images = SmallImages(tmp_path / "pictures", days=2, most_bytes=3 * _size(tmp_path))
    for key in "abcd":
        images.keep(key, LARGE)
    assert files(tmp_path) == ["c.jpg", "d.jpg"]


def _size(folder: Path) -> int:
    images = SmallImages(folder / "other", days=2)
    images.keep("a", LARGE)
    return (folder / "other" / "a.jpg").stat().st_size


def test_a_folder_that_cannot_be_written_keeps_none_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pictures").write_text("a file")
    images = SmallImages(tmp_path / "pictures", days=2)
    for _ in range(3):
        images.keep("a", LARGE)
    images.delete_old()
    assert caplog.text.count("not kept") == 1
    assert images.read("a") is None


def test_a_damaged_copy_is_none(images: SmallImages, tmp_path: Path) -> None:
    images.keep("a", LARGE)
    file = tmp_path / "pictures" / "a.jpg"
    file.write_bytes(file.read_bytes()[:300])
    assert images.read("a") is None
