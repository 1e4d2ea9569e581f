"""The classes of published label maps: what a file of the data set says."""

from collections.abc import Callable
from pathlib import Path

import pytest

from backend.dataset.formats.layouts import ReadingOptions, find_masks, read_masks
from backend.dataset.mask_source import Limits
from backend.errors import DatasetError
from tests.backend.dataset.formats import published_sets
from tests.backend.dataset.formats.published_sets import SIZE_HW, Writer


def labels(folder: Path, names: Path | None = None) -> list[str]:
    (source,) = read_masks(folder, ReadingOptions(names=names), Limits())
    return [each.label for each in source.read_regions(SIZE_HW)]


@pytest.mark.parametrize(
    "build", [published_sets.cityscapes, published_sets.camvid_of_segnet, published_sets.voc_devkit]
)
def test_names_that_are_given_count(tmp_path: Path, build: Callable[[Writer], None]) -> None:
    build(Writer(tmp_path))
    names = tmp_path / "mine.txt"
    names.write_text("".join(f"class {value}\n" for value in range(34)))
    (name,) = set(labels(tmp_path, names)) - {"class 0", "class 11"}
    assert name in ("class 26", "class 8", "class 7")


def test_a_file_of_classes_in_the_folder_counts(tmp_path: Path) -> None:
    """Of a set of one's own with the folders of a published one."""
    published_sets.camvid_of_segnet(Writer(tmp_path))
    (tmp_path / "names.txt").write_text("-\n" * 8 + "my car\n" + "-\n" * 3)
    assert labels(tmp_path) == ["my car"]


def test_a_file_beside_voc_counts_and_none_further_up(tmp_path: Path) -> None:
    published_sets.voc_devkit(Writer(tmp_path))
    (tmp_path / "VOCdevkit/VOC2012/classes.txt").write_text("-\n" * 7 + "wagon\n")
    assert labels(tmp_path) == ["wagon"]


def test_a_value_that_the_data_set_does_not_have_is_a_sentence(tmp_path: Path) -> None:
    to = Writer(tmp_path)
    published_sets.camvid_of_segnet(to)
    to.values("trainannot/0001TP_006690.png", 12, 11)
    with pytest.raises(DatasetError, match="the value 12, which CamVid of SegNet does not name"):
        labels(tmp_path)


@pytest.mark.parametrize(
    ("build", "file", "text", "sentence"),
    [
        (
            published_sets.roboflow_png,
            "train/_classes.csv",
            "Pixel Value, Class\nx, car\n",
            "number",
        ),
        (published_sets.camvid_of_kaggle, "class_dict.csv", "name,r,g,b\nCar,64,0\n", "name,r,g,b"),
        (published_sets.camvid_of_kaggle, "class_dict.csv", "name,r,g,b\nCar,a,0,1\n", "number"),
    ],
)
def test_a_broken_file_of_classes_is_a_sentence(
    tmp_path: Path, build: Callable[[Writer], None], file: str, text: str, sentence: str
) -> None:
    build(Writer(tmp_path))
    (tmp_path / file).write_text(text)
    with pytest.raises(DatasetError, match=sentence):
        find_masks(tmp_path)
