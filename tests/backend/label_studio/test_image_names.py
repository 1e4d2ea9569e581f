"""Names of pictures in the addresses that tasks have, and the places of several in one task."""

from __future__ import annotations

import unicodedata

import pytest

from backend.label_studio.image_loader import ImageName, as_uploaded, image_places
from backend.label_studio.label_config import ImageTag
from backend.label_studio.requests import Task


@pytest.mark.parametrize(
    ("source", "folders", "file"),
    [
        ("/data/upload/7/a%20b.jpg", ("data", "upload", "7"), "a b.jpg"),
        ("/data/local-files/?d=x%2Fy%2Fa.jpg", ("x", "y"), "a.jpg"),
        ("http://studio:8080/base/data/local-files/?d=x/a%2B.jpg&z=1", ("x",), "a+.jpg"),
        ("https://host/deep/a.jpg?X-Signature=abc/def.png#top", ("deep",), "a.jpg"),
        ("gs://bucket/x/a.jpg", ("bucket", "x"), "a.jpg"),
        ("azure-blob://box/a.jpg", ("box",), "a.jpg"),
        (" a.jpg ", (), "a.jpg"),
        ("https://host/" + unicodedata.normalize("NFD", "ü") + ".jpg", (), "ü.jpg"),
    ],
)
def test_the_path_of_a_picture(source: str, folders: tuple[str, ...], file: str) -> None:
    name = ImageName.of(source)
    assert name is not None
    assert (name.folders, name.file) == (folders, file)


@pytest.mark.parametrize("source", ["data:image/png;base64,AA==", "", "https://host/", "http://["])
def test_addresses_without_a_name(source: str) -> None:
    assert ImageName.of(source) is None


@pytest.mark.parametrize(
    ("source", "uploaded"),
    [
        ("/data/upload/7/0a1b2c3d-a.jpg", "a.jpg"),
        ("https://studio/data/upload/7/0a1b2c3d-a-b.jpg", "a-b.jpg"),
        ("/data/upload/7/a.jpg", None),
        ("/data/upload/7/0A1B2C3D-a.jpg", None),
        ("https://host/0a1b2c3d-a.jpg", None),
    ],
)
def test_only_an_upload_has_the_prefix_of_label_studio(source: str, uploaded: str | None) -> None:
    name = ImageName.of(source)
    assert name is not None
    assert name.uploaded_file == uploaded


def test_names_as_django_stores_them() -> None:
    """`django.utils.text.get_valid_filename` of these was asked once."""
    given = ["my photo (1).jpg", " a&b.png", "straße ü.png", "a__b-c.v2.PNG", "x,y;z.png"]
    stored = ["my_photo_1.jpg", "ab.png", "straße_ü.png", "a__b-c.v2.PNG", "xyz.png"]
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
