"""Files that say what the values of label maps stand for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.dataset.labelled_image import ClassTable
from backend.dataset.readers.label_map import LabelValues
from backend.errors import DatasetError


def test_the_file_that_an_export_writes_is_read(tmp_path: Path) -> None:
    table = ClassTable(("sky", "road"), "other")
    (tmp_path / "classes.json").write_text(json.dumps(table.to_json("largest")))
    found = LabelValues.find(tmp_path)
    assert found.names == {0: None, 1: "sky", 2: "road", 255: None}
    assert found.colours == dict(enumerate(table.colours))


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (["sky", "road"], {0: "sky", 1: "road", 255: None}),
        ({"classes": ["sky"], "nothing": 0}, {0: "sky"}),
        ({"7": "road", "24": "person"}, {7: "road", 24: "person", 255: None}),
        ({"classes": [{"value": 3, "name": " sky "}], "nothing": None}, {3: "sky"}),
    ],
)
def test_other_forms_of_json(tmp_path: Path, content: object, names: dict[int, str]) -> None:
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert LabelValues.read(tmp_path / "c.json").names == names


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "7",
        "[]",
        "[1]",
        '[""]',
        '{"classes": {}}',
        '{"classes": [{"value": 1}]}',
        '{"classes": [{"value": -1, "name": "a"}]}',
        '{"classes": [{"value": true, "name": "a"}]}',
        '{"classes": [{"value": 1, "name": "a"}, {"value": 1, "name": "b"}]}',
        '{"classes": [{"value": 1, "name": "a", "colour": "red"}]}',
        '{"one": "a"}',
        "[" * 100_000,
    ],
)
def test_what_is_no_such_file_is_refused_in_a_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "classes.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=r"classes\.json"):
        LabelValues.read(path)
