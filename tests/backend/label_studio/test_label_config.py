"""Where a task has the pictures of a tag."""

from typing import Any

import pytest

from backend.errors import DataKeyError
from backend.label_studio.label_config import ImageTag
from backend.label_studio.label_config_parser import parse_label_config

IMAGE = '<Image name="i" value="$image"/>'

BRUSH = '<BrushLabels name="b" toName="i"><Label value="x"/></BrushLabels>'


@pytest.mark.parametrize(
    ("value", "data", "sources"),
    [
        ("$image", {"image": "/data/upload/1/a.png"}, ("/data/upload/1/a.png",)),
        ("$a.b", {"a": {"b": "x"}}, ("x",)),
        ("$a.b", {"a.b": "flat"}, ("flat",)),
        ("$a[1].b", {"a": [{"b": "x"}, {"b": "y"}]}, ("y",)),
        ("$pages", {"pages": ["p1", "p2"]}, ("p1", "p2")),
        ("https://host/$folder/$file", {"folder": "f", "file": "a.png"}, ("https://host/f/a.png",)),
        ("https://host/fixed.png", {}, ("https://host/fixed.png",)),
        ('$other" valueList="$pages', {"pages": ["p1"], "other": "x"}, ("p1",)),
    ],
)
def test_sources(value: str, data: dict[str, Any], sources: tuple[str, ...]) -> None:
    config = parse_label_config(f"<View>{IMAGE.replace('$image', value)}{BRUSH}</View>", None)
    assert config.images[0].sources(data) == sources


@pytest.mark.parametrize(
    ("value", "data", "sentence"),
    [
        ("$image", {"photo": "x", "id": 3}, r'asks for "\$image".*has only: photo, id\.'),
        ("$imgae", {"id": 3, "image": "x"}, r'has only: id, image\. Write "\$image" if that is'),
        ("$a[2]", {"a": ["x"]}, "asks for"),
        ("$image", {"image": None}, "holds null"),
        ("$image", {"image": ""}, 'holds ""'),
        ("$image", {"image": {"url": "x"}}, r'holds {"url": "x"}'),
        ("$pages", {"pages": ["x", 3]}, r'holds \["x", 3\]'),
    ],
)
def test_unknown_data_keys(value: str, data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataKeyError, match=sentence):
        ImageTag("i", value).sources(data)
