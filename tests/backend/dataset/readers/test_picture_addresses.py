"""Where the pictures of an exported data set came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.dataset.matching import read_picture_addresses

ROW = {"image": "1a2b3c4d-a.b.png", "task": 3, "source": "/data/upload/7/1a2b3c4d-a.b.jpg"}


@pytest.mark.parametrize("given", ["", "annotations", "annotations/instances_train.json"])
def test_the_addresses_of_a_data_set_are_read(tmp_path: Path, given: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "pictures.jsonl").write_text(json.dumps(ROW) + "\n")
    assert read_picture_addresses(tmp_path / given) == {
        "1a2b3c4d-a.b": "/data/upload/7/1a2b3c4d-a.b.jpg"
    }
