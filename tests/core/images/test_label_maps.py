"""Folders of pictures and label maps: which files belong together, and what their values mean."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip_core.images.label_maps import (
    LayoutError,
    blend,
    class_indices,
    find_images,
    output_names,
    overlay,
    pair_files,
    palette,
    replaced,
    write_whole,
)


def save(path: Path, mode: str = "L", size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


def test_pictures_and_label_maps_of_one_path_are_pairs(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    save(images / "b.jpg", "RGB")
    save(images / "day" / "a.png", "RGB")
    save(images / "without.jpg", "RGB")
    save(images / "._b.jpg", "RGB")
    save(masks / "b.png")
    save(masks / "day" / "a.png")
    pairs = pair_files(images, masks)
    assert [pair.name for pair in pairs] == ["b", "day/a"]
    assert pairs[1].picture == images / "day" / "a.png"
    assert pairs[1].label_map == masks / "day" / "a.png"
    for picture, label_map in (("x/a.jpg", "x/a.png"), ("y/a.jpg", "y/masks/a.png")):
        save(tmp_path / picture, "RGB")  # beside their pictures, or in a folder below
        folder = save(tmp_path / label_map).parent
        (pair,) = pair_files((tmp_path / picture).parent, folder)
        assert (pair.picture, pair.label_map) == (tmp_path / picture, tmp_path / label_map)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    with pytest.raises(LayoutError, match=r"Expected a folder at .*images, but there is none"):
        pair_files(images, masks)
    images.mkdir()
    masks.mkdir()
    with pytest.raises(LayoutError, match=r"Expected label maps at .*masks.*, but there are none"):
        pair_files(images, masks)
    save(masks / "a.png")
    with pytest.raises(LayoutError, match="there is none for 1 of 1: a"):
        pair_files(images, masks)
    save(images / "a.jpg", "RGB")
    save(images / "a.png", "RGB")
    with pytest.raises(LayoutError, match=r"one file of each name in .*images: a has more"):
        pair_files(images, masks)


def test_a_label_map_of_another_size_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.jpg", "RGB", (6, 4))
    save(tmp_path / "masks" / "a.png", "L", (4, 6))
    (pair,) = pair_files(tmp_path / "images", tmp_path / "masks")
    with pytest.raises(LayoutError, match="as large as its picture, 6×4 px, but it has 4×6"):
        pair.read([0])


def test_values_become_indices_of_the_classes_that_count() -> None:
    values = np.array([[0, 1, 2], [3, 255, 0]], np.uint8)
    indices = class_indices(values, [0, None, 1, -1])
    assert indices.tolist() == [[0, 255, 1], [254, 255, 0]]
    assert indices.dtype == np.uint8


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


def test_an_overlay_mixes_colours_where_there_is_a_label() -> None:
    rgb = np.full((200, 300, 3), 100, np.uint8)
    labels = np.full((200, 300), -1)
    labels[:, :150] = 1
    picture = np.asarray(overlay(rgb, labels, ["sky", "tree"], opacity=0.25))
    mixed = [round(0.25 * channel + 75) for channel in palette(2)[1].tolist()]
    assert np.abs(picture[:, :149].astype(int) - mixed).max() <= 1
    assert (picture[:, 151:300] == 100).all()
    assert (rgb == 100).all()


@pytest.mark.parametrize("rgb", [(0, 0, 255), (0, 128, 0), (255, 255, 255), (0, 0, 0)])
def test_a_contour_stands_out_from_its_own_colour_black_and_white(rgb: tuple[int, ...]) -> None:
    picture = np.full((40, 60, 3), rgb, np.uint8)
    label_map = np.full((40, 60), -1)
    label_map[10:30, 10:50] = 0
    shown = blend(picture, label_map, np.array([rgb], np.uint8)).astype(int)
    around = shown[9:11, 20]  # the last pixel outside, and the first one inside
    assert abs(around - np.array(rgb)).sum(axis=1).max() >= 200


def test_a_contour_parts_two_labels() -> None:
    picture = np.full((40, 60, 3), 100, np.uint8)
    label_map = np.repeat([[0] * 30 + [1] * 30], 40, axis=0)
    shown = blend(picture, label_map, palette(2)).astype(int)
    inside, dark, light = shown[20, 10], shown[20, 29], shown[20, 30]
    assert dark.sum() < inside.sum() < light.sum()
    assert (shown[20, :28] == inside).all()


def test_a_label_map_of_one_label_has_no_contour() -> None:
    picture = np.full((40, 60, 3), 100, np.uint8)
    shown = blend(picture, np.zeros((40, 60), int), palette(1))
    assert (shown == shown[0, 0]).all()


def has_colour(picture: np.ndarray, index: int) -> bool:
    return bool((picture == palette(index + 1)[index]).all(axis=-1).any())


def test_the_legend_shows_the_labels_that_are_there() -> None:
    rgb = np.full((120, 160, 3), 255, np.uint8)
    labels = np.zeros((120, 160), int)
    labels[:60] = 2
    picture = np.asarray(overlay(rgb, labels, ["sky", "tree", "horse"]))
    assert picture.shape[0] == 120
    legend = picture[:, 160:]
    assert legend.shape[1] > 60
    assert [has_colour(legend, i) for i in range(3)] == [True, False, True]
    longer = overlay(rgb, labels, ["sky", "tree", "horse on a far and foggy hill"])
    assert longer.width > picture.shape[1]


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
