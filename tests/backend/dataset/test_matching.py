"""Files to pictures of tasks, and classes to labels: by name, by alias, by words, by a table."""

import json
import unicodedata
from pathlib import Path

import pytest

from backend.dataset.mask_source import MaskSource
from backend.dataset.matching import (
    ClassMapping,
    ImagePlace,
    NameMatcher,
    as_uploaded,
    image_places,
    match_by_name,
    read_image_addresses,
)
from backend.errors import DatasetError
from backend.label_studio.label_config import ImageTag
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task


def place(task: int, source: str, tag: str = "img", index: int | None = None) -> ImagePlace:
    return ImagePlace(Task(task, 7, {}), tag, source, index)


def source(name: str) -> MaskSource:
    return MaskSource(name, f"{name}.png", lambda size_hw: ())


PLACES = [
    place(1, "/data/upload/7/1a2b3c4d-my_photo_1.jpg"),
    place(2, "/data/local-files/?d=stra%C3%9Fe%2Ftrain%2Fa.jpg"),
    place(3, "http://x:80/label/data/local-files/?d=straße/val/a.jpg&z=1"),
    place(4, "https://host/x/" + unicodedata.normalize("NFD", "bär.png") + "?signature=1"),
    place(5, "s3://bucket/deep/b.v2.jpeg"),
    place(6, "data:image/png;base64,AAAA"),
    place(7, "/data/upload/7/deadbeef-0001.png"),
    place(8, "/data/upload/7/0badcafe-0001.png"),
    place(9, "https://host/under_score.png"),
    place(11, "https://host/0badcafe-other.png"),
    place(12, "s3://one/c.png"),
    place(13, "s3://two/c.png"),
]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        *(("my photo (1)", 1), ("1a2b3c4d-my_photo_1", 1), ("train/a", 2), ("any/val/a.jpg", 3)),
        *(("val\\a", 3), (unicodedata.normalize("NFD", "bär"), 4)),
        ("b.v2.png", 5),  # a data set may have the picture in another format
        ("train/bär_png.rf.0a1b2c3d", 4),  # as Roboflow names it
        ("b.v2_jpeg.rf.0a1b2c3d.jpg", 5),
        ("my-photo-1-_jpg.rf.0a1b2c3d.jpg", 1),  # of "my photo (1).jpg"
        ("under-score_png.rf.0a1b2c3d.jpg", 9),
        ("two/c", 13),  # a bucket is a folder
    ],
)
def test_a_picture_is_found_by_its_name(name: str, task: int) -> None:
    assert NameMatcher(PLACES).find(name).task.id == task


def test_another_name_counts_where_the_first_is_none() -> None:
    matcher = NameMatcher(PLACES)
    assert matcher.find("x_jpg.rf.01.jpg", "under_score.png").task.id == 9
    assert matcher.find("bär.png", "under_score.png").task.id == 4


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test/a", "2 pictures have that name, in tasks 2, 3"),
        ("b", "no task has a picture of that name"),
        ("MY_PHOTO_1", "no task has a picture of that name"),
        ("under score", "no task has a picture of that name"),  # only an upload is renamed
        ("other", "no task has a picture of that name"),
        ("my-photo-1", "no task has a picture of that name"),  # not of Roboflow
        ("", "no task has a picture of that name"),
    ],
)
def test_nothing_is_guessed(name: str, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        NameMatcher(PLACES).find(name)


def test_several_masks_of_a_picture_are_all_left_out() -> None:
    given = [source("train/a"), source("x/train/a"), source("bär")]
    matched, unmatched = match_by_name(given, PLACES)
    assert [each.place.task.id for each in matched] == [4]
    assert [each.reason for each in unmatched] == ["2 files of masks are for task 2"] * 2


#: Names in a data set of another project -> what its pictures are called there.
ADDRESSES = {
    "ffffffff-my_photo_1": "/data/upload/3/ffffffff-my_photo_1.jpg",
    "a-task12": "/data/local-files/?d=stra%C3%9Fe/val/a.jpg",
    "ffffffff-0001": "/data/upload/3/ffffffff-0001.png",
    "deadbeef-0001": "/data/upload/3/deadbeef-other.png",
    "under_score": "data:image/png;base64,AAAA",
    "a": "s3://bucket/straße/train/a.jpg",
    "cam1/17": PLACES[4].source,
    "cam2/17": PLACES[6].source,
}


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("train/ffffffff-my_photo_1.png", 1),
        ("a-task12", 3),
        ("deadbeef-0001", 7),  # its own name comes first
        ("under_score", 9),
        ("a", 2),  # the first picture of a name is exported under it
        ("cam2/17.png", 7),
    ],
)
def test_pictures_of_another_project_are_found_by_their_addresses(name: str, task: int) -> None:
    (matched,), _ = match_by_name([source(name)], PLACES, ADDRESSES)
    assert matched.place.task.id == task


def test_addresses_do_not_make_anybody_guess() -> None:
    matcher = NameMatcher([*PLACES, place(10, "s3://bucket/deep/b.v2.jpeg")], ADDRESSES)
    for name, reason in (
        ("ffffffff-0001", "2 pictures have that name, in tasks 7, 8"),
        ("eeeeeeee-my_photo_1", "no task has a picture of that name"),
        ("cam1/17", "in tasks 5, 10"),  # an address that several tasks have
    ):
        with pytest.raises(DatasetError, match=reason):
            matcher.find(name)


CONFIG = parse_label_config(
    """<View><Image name="img" value="$image"/><Image name="two" value="$two"/>
    <PolygonLabels name="outline" toName="img"><Label value="Car"/><Label value="Traffic Light"/>
    </PolygonLabels>
    <BrushLabels name="mask" toName="img" prelabel="no"><Label value="Car" alias="c"/>
      <Label value="car"/><Label value="CAR"/></BrushLabels>
    <RectangleLabels name="box" toName="img,two" smart="true"><Label value="Dog"/>
    </RectangleLabels></View>""",
    None,
)


@pytest.mark.parametrize(
    ("name", "control", "label"),
    [
        ("Car", "mask", "Car"),
        ("c", "mask", "Car"),
        ("car", "mask", "car"),
        ("traffic_light", "outline", "Traffic Light"),
        ("dog", "box", "Dog"),
    ],
)
def test_a_class_is_the_label_of_its_name(name: str, control: str, label: str) -> None:
    target = ClassMapping(CONFIG).target(name, "img")
    assert (target.control.name, target.label.name) == (control, label)


def test_the_controls_that_are_named_are_tried_in_their_order() -> None:
    mapping = ClassMapping(CONFIG, controls=("outline", "mask"))
    assert mapping.target("Car", "img").control.name == "outline"
    assert mapping.target("CAR", "img").control.name == "mask"


@pytest.mark.parametrize(
    ("name", "tag", "controls", "reason"),
    [
        ("tree", "two", (), r'"tree" is no label .* which have "Dog": .*"tree="'),
        ("Dog", "img", ("outline", "mask"), '"Dog" is no label of outline and mask, which have'),
        ("cAR", "img", (), r'could be the labels "CAR", "Car", "car".*--map "cAR='),
    ],
)
def test_no_label_or_several(name: str, tag: str, controls: tuple[str, ...], reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        ClassMapping(CONFIG, controls=controls).target(name, tag)


ROW = {"image": "1a2b3c4d-a.b.png", "task": 3, "source": "/data/upload/7/1a2b3c4d-a.b.jpg"}


@pytest.mark.parametrize("given", ["", "annotations/instances_train.json"])
def test_the_addresses_of_a_data_set_are_read(tmp_path: Path, given: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "pictures.jsonl").write_text(json.dumps(ROW) + "\n")
    assert read_image_addresses(tmp_path / given) == {
        "1a2b3c4d-a.b": "/data/upload/7/1a2b3c4d-a.b.jpg"
    }


def test_names_as_django_stores_them() -> None:
    """`django.utils.text.get_valid_filename` of these was asked once."""
    given = ["my photo (1).jpg", " a&b.png", "straße ü.png", "a__b-c.v2.PNG"]
    stored = ["my_photo_1.jpg", "ab.png", "straße_ü.png", "a__b-c.v2.PNG"]
    assert [as_uploaded(each) for each in given] == stored


def test_places_of_several_images_and_of_tasks_without_any() -> None:
    tags = [ImageTag("left", "$left"), ImageTag("pages", "$pages")]
    tasks = [
        Task(1, 7, {"left": "a.png", "pages": ["b.png", "c.png"]}),
        Task(2, 7, {"left": "d.png"}),
        Task(3, 7, {"text": "no picture"}),
    ]
    found = [(each.key, each.source, each.item_index) for each in image_places(tasks, tags)]
    assert found == [
        ((1, "left", 0), "a.png", None),
        ((1, "pages", 0), "b.png", 0),
        ((1, "pages", 1), "c.png", 1),
        ((2, "left", 0), "d.png", None),
    ]
