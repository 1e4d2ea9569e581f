"""Label maps from published ones, against tables written down by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip_core.evaluation.benchmarks import RECODINGS, class_names, prepare
from clearclip_core.images.label_maps import LayoutError
from tests.core.evaluation.miniatures import draw

#: Category ids of COCO (a published map holds one less) -> name, at both sides of every gap.
COCO = {1: "person", 11: "fire hydrant", 13: "stop sign", 25: "giraffe", 27: "backpack"}
COCO |= {28: "umbrella", 31: "handbag", 44: "bottle", 46: "wine glass", 65: "bed", 90: "toothbrush"}
COCO |= {67: "dining table", 70: "toilet", 72: "tv", 82: "refrigerator", 84: "book"}
STUFF = {92: "banner", 182: "wood"}
#: Cityscapes' ids of the classes that count.
CITYSCAPES = {7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole"}
CITYSCAPES |= {19: "trafficlight", 20: "trafficsign", 21: "vegetation", 22: "terrain", 23: "sky"}
CITYSCAPES |= {24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"}
CITYSCAPES |= {32: "motorcycle", 33: "bicycle"}


def write_map(path: Path, values: list[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([values], np.uint8)).save(path)
    return path


def read_map(path: Path) -> list[int]:
    with Image.open(path) as picture:
        return np.asarray(picture)[0].tolist()  # type: ignore[no-any-return]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    values = [number - 1 for number in [*COCO, *STUFF]] + [255]
    write_map(tmp_path / "annotations" / "val2017" / "000000000139.png", values)
    draw(tmp_path / "images" / "val2017" / "000000000139.jpg", 0)
    return tmp_path


def test_coco_stuff_counts_its_classes_through_and_coco_object_its_things(coco: Path) -> None:
    (path,) = prepare("coco_stuff", coco)
    assert path.name == "000000000139_labelTrainIds.png"
    names = class_names("coco_stuff")
    expected = [names.index(name.replace(" ", "")) for name in [*COCO.values(), *STUFF.values()]]
    assert read_map(path) == [*expected, 255]
    (path,) = prepare("coco_object", coco)
    assert path.name == "000000000139_instanceTrainIds.png"
    names = ("background", *class_names("coco_object"))
    assert read_map(path) == [*map(names.index, COCO.values()), *[0] * len(STUFF), 0]


def test_every_value_of_coco_has_a_class() -> None:
    _, stuff = RECODINGS["coco_stuff"]
    assert sorted(set(stuff.values())) == [*range(171), 255]
    assert len([value for value in stuff if value <= 90]) == 80


def test_cityscapes_ids_become_train_ids(tmp_path: Path) -> None:
    name = "frankfurt/frankfurt_000000_000294"
    ids = [*range(34)]
    write_map(tmp_path / "gtFine" / "val" / f"{name}_gtFine_labelIds.png", ids)
    draw(tmp_path / "leftImg8bit" / "val" / f"{name}_leftImg8bit.png", 0)
    (path,) = prepare("cityscapes", tmp_path)
    assert path == tmp_path / "gtFine" / "val" / f"{name}_gtFine_labelTrainIds.png"
    names = class_names("cityscapes")
    assert read_map(path) == [
        names.index(CITYSCAPES[number]) if number in CITYSCAPES else 255 for number in ids
    ]


def test_what_is_missing_or_unknown_is_refused(coco: Path) -> None:
    published = coco / "annotations" / "val2017" / "000000000139.png"
    write_map(published, [0, 11])  # COCO has no category 12
    with pytest.raises(LayoutError, match=r"000000000139.png: Expected values .* but got 11"):
        list(prepare("coco_stuff", coco))
    published.unlink()
    with pytest.raises(LayoutError, match=r"000000000139\.png"):
        list(prepare("coco_object", coco))
    assert [p.name for p in published.parent.iterdir()] == []
