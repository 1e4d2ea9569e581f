"""LabelMe's files: shapes of each kind against Pillow's drawing and masks that are known."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.dataset.formats.labelme import read_labelme
from backend.dataset.formats.layouts import find_masks
from backend.dataset.mask_source import Limits
from backend.errors import DatasetError
from tests.backend.dataset.drawn_tasks import saved

MASK = np.zeros((40, 60), np.bool_)
MASK[5:20, 10:30] = True
MASK_FILE = base64.b64encode(saved(Image.fromarray(MASK[5:20, 10:30]))).decode()


def shape(kind: str, points: Any, label: str = "car", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None} | more


def read(folder: Path, *shapes: Any) -> Any:
    told = {"imagePath": "..\\\\pictures\\\\a.jpg", "imageHeight": 40, "imageWidth": 60}
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "sub/a.json").write_text(json.dumps({"shapes": shapes} | told))
    (source,) = read_labelme(folder, Limits())
    assert source.name == "sub/a.jpg"
    return source.read_regions((40, 60))


@pytest.mark.parametrize(
    "shapes",
    [
        [shape("rectangle", [[30, 20], [10, 5]])],
        [shape("polygon", [[10, 5], [30, 5], [30, 20], [10, 20]])],
        [shape("mask", [[10, 5], [29, 19]], mask=MASK_FILE)],
        [shape("rectangle", [[x, 5], [x + 10, 20]], group_id=3) for x in (10, 20)],  # one object
    ],
)
def test_shapes_have_their_pixels(tmp_path: Path, shapes: list[Any]) -> None:
    (region,) = read(tmp_path, *shapes)
    assert region.label == "car"
    np.testing.assert_array_equal(region.read_mask(), MASK)
    (tmp_path / "a.json").write_text((tmp_path / "sub/a.json").read_text())
    assert find_masks(tmp_path).layout == "LabelMe"


@pytest.mark.parametrize("kind", ["line", "point", "polygon", "rectangle"])
def test_a_shape_without_an_area_has_no_pixel(tmp_path: Path, kind: str) -> None:
    (flat,) = read(tmp_path, shape(kind, [[1, 1], [1, 9]]))
    assert flat.id == "the shape 1"
    assert not flat.read_mask().any()


def test_a_circle_goes_through_its_second_point(tmp_path: Path) -> None:
    (round_,) = read(tmp_path, shape("circle", [[30, 20], [30, 32]]))
    y, x = np.mgrid[:40, :60] + 0.5
    distance = np.hypot(x - 30, y - 20)
    mask = round_.read_mask()
    assert mask[distance < 11.9].all()
    assert not mask[distance > 12.1].any()


@pytest.mark.parametrize(
    "one",
    [
        shape("polygon", "x"),
        shape("polygon", [[1, 2], [3, float("nan")], [5, 6]]),
        shape("mask", [[50, 5], [70, 19]], mask=MASK_FILE),
        shape("mask", [[0, 0]], mask="AAAA"),
        shape("mask", [[0, 0]]),
    ],
)
def test_a_broken_shape_is_a_sentence(tmp_path: Path, one: Any) -> None:
    (region,) = read(tmp_path, one)
    with pytest.raises(DatasetError, match=r"shape 1 is broken, \w"):
        region.read_mask()
