"""Image files: found, named, and written whole."""

from pathlib import Path

import pytest

from clearclip_core.images.files import find_images, output_names, replaced, write_whole


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


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file, target = tmp_path / "a/b.txt", tmp_path / "target"
    target.write_bytes(b"mine")
    write_whole(file, b"old")

    def write_half() -> None:
        with replaced(file) as stream:
            stream.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert file.read_bytes() == b"old"
    assert [*file.parent.iterdir()] == [file]
    file.unlink()
    file.symlink_to(target)  # a file replaces a link, and not what it leads to
    write_whole(file, b"new")
    assert (file.read_bytes(), target.read_bytes()) == (b"new", b"mine")
