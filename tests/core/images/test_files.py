"""Image files that are found, and the names of their results."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearclip_core.images.label_maps import find_images, output_names


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_glob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "photos" / "one.jpg", tmp_path / "photos" / "trip" / "Three.JPG")
    monkeypatch.chdir(tmp_path)
    assert find_images(["photos/**/*.JPG"]) == [Path("photos/trip/Three.JPG")]
    with pytest.raises(Exception, match=r"no pictures at 'photos/\*\.gif'"):
        find_images(["photos/*.gif"])


def test_pictures_are_taken_once_and_in_order(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    one, two, three = photos / "one.jpg", photos / "two.png", photos / "trip" / "Three.JPG"
    touch(one, two, three, photos / "notes.txt")
    assert find_images([str(photos)]) == [one, three, two]
    assert find_images([str(two), str(photos), str(photos / "*.png")]) == [two, one, three]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/x.jpg"], ["x"]),
        (["a/x.jpg", "b/y.v2.png"], ["x", "y.v2"]),
        (["a/x.jpg", "b/x.png"], ["a/x.jpg", "b/x.png"]),
        (["a/x.jpg", "b/x.jpg", "b/c/y.jpg"], ["a/x.jpg", "b/x.jpg", "b/c/y.jpg"]),
        (["a/x.jpg", "a/x.png", "a/x.jpg.png"], ["x.jpg", "x.png", "x.jpg.png"]),
        (["a/x.jpg", "b/X.png"], ["a/x.jpg", "b/X.png"]),  # one file where case is ignored
        (["x.jpg", "../x.jpg", "/x.jpg"], None),
    ],
)
def test_every_picture_has_a_name_of_its_own(files: list[str], names: list[str] | None) -> None:
    paths = [Path(file) for file in files]
    made = [name.as_posix() for name in output_names(paths)]
    assert names is None or made == names
    assert len(set(made)) == len(files)
    assert not any(name.startswith(("/", "..")) for name in made)
