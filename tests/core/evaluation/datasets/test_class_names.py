"""Names of the classes: how many there are, and files of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearclip_core import Label
from clearclip_core.evaluation.benchmarks import as_labels, class_names, read_labels


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("voc20", 20),
        ("context59", 59),
        ("coco_stuff", 171),
        ("coco_object", 80),
        ("cityscapes", 19),
        ("ade20k", 150),
    ],
)
def test_every_class_has_a_name_of_its_own(name: str, count: int) -> None:
    names = class_names(name)
    assert len(names) == len(set(names)) == count
    assert all(each == each.strip() and each and "," not in each for each in names)


def test_a_file_of_ones_own_gives_several_words_to_a_class(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("sky, air ,heaven\nautomobile\n\n")
    assert read_labels(path, ("sky", "car")) == (
        Label("sky", ("sky", "air", "heaven")),
        Label("car", ("automobile",)),
    )
    assert as_labels(("sky", "car")) == (Label("sky"), Label("car"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sky\n", "to have 2 lines, one a class from 'sky' to 'car', but got 1"),
        ("sky\ncar\ntree\n", "but got 3"),
        ("sky\n , \n", "line 2 of .* to name 'car', but it is empty"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "names.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_labels(path, ("sky", "car"))
