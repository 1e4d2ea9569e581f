"""What is said and shown of a folder of masks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from backend.dataset.formats.layout import SetFolder
from backend.dataset.formats.layouts import find_masks
from backend.dataset.mask_preview import PictureFinder, preview_masks
from backend.dataset.mask_source import Limits
from tests.backend.dataset.formats import published_sets
from tests.backend.dataset.formats.published_sets import CAR, EACH, Writer

LIMITS = Limits()


@EACH
def test_the_picture_of_masks_is_found(
    tmp_path: Path, layout: str, build: Callable[[Writer], None], car: str, picture: str
) -> None:
    build(Writer(tmp_path))
    (source,) = find_masks(tmp_path).read(LIMITS, None)
    folder = SetFolder(tmp_path)
    finder = PictureFinder(folder, find_masks(tmp_path).image_folders)
    assert finder.find(source) == tmp_path / picture


def test_a_preview_shows_three_pictures_and_counts_all(tmp_path: Path) -> None:
    to = Writer(tmp_path / "set")
    to.json("classes.json", ["car", "road"])
    for number in range(5):
        to.values(f"masks/{number}.png", 0, 1)
        to.picture(f"images/{number}.jpg")
    found = find_masks(tmp_path / "set")
    preview = preview_masks(found, SetFolder(tmp_path / "set"), LIMITS, None, tmp_path)
    assert (preview.files, preview.pictures, preview.problems) == (5, 5, [])
    assert {name: each.pictures for name, each in preview.classes.items()} == {"car": 5, "road": 5}
    assert preview.classes["car"].pixels == 5 * CAR.sum()
    assert len(preview.overlays) == 3
    with Image.open(preview.overlays[0]) as shown:
        levels = np.asarray(shown).astype(int)
    inside, outside = levels[8:18, 12:28].mean((0, 1)), levels[25:38, 35:55].mean((0, 1))
    assert abs(inside - outside).max() > 20, "each class has a colour of its own"


def test_a_preview_says_which_masks_do_not_fit(tmp_path: Path) -> None:
    to = Writer(tmp_path / "set")
    published_sets.own(to)
    Image.new("RGB", (30, 20)).save(tmp_path / "set/images/a.jpg")
    found = find_masks(tmp_path / "set")
    preview = preview_masks(found, SetFolder(tmp_path / "set"), LIMITS, None, tmp_path)
    assert preview.problems == ["a.png is 60×40 px, but its picture 30×20 px."]
    assert preview.overlays == []


def test_masks_without_their_pictures_are_counted(tmp_path: Path) -> None:
    to = Writer(tmp_path / "set")
    published_sets.own(to)
    (tmp_path / "set/images/a.jpg").unlink()
    found = find_masks(tmp_path / "set")
    preview = preview_masks(found, SetFolder(tmp_path / "set"), LIMITS, None, tmp_path)
    assert (preview.files, preview.pictures, list(preview.classes)) == (1, 0, ["car"])
    assert "the pictures are not there" in preview.describe(Path("set"), "import-masks")
