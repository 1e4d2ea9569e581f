"""COCO's files read by COCO's own reader."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from backend.dataset.labelled_image import ClassTable, LabelledImage, LabelledRegion
from backend.dataset.splits import Split
from backend.dataset.writers import coco
from tests.backend.dataset.exported_tasks import (
    NAMES,
    SIZE_HW,
    Bench,
    annotation,
    bitmask_region,
    brush_region,
    picture_bytes,
    rectangle,
    task,
)

SKY, ROAD = rectangle(0, 0, 20, 60), rectangle(15, 0, 40, 60)


def test_masks_come_back_in_every_pixel(bench: Bench) -> None:
    random = np.random.default_rng(2)
    for n in range(1, 4):
        regions = [
            brush_region(random.random(SIZE_HW) < 0.5, "sky", id="s", score=0.25),
            brush_region(random.random(SIZE_HW) < 0.5, "road", id="r"),
            bitmask_region(random.random(SIZE_HW) < 0.5, "c", id="c"),
        ]
        source = bench.add(f"größe {n}.png", picture_bytes(n))
        bench.tasks.append(task(n, source, [annotation(n, regions, person=8)]))
    bench.done(formats=("coco", "index-png"))
    read = COCO(bench.folder / "annotations/instances_train.json")
    assert [each["name"] for each in read.loadCats(read.getCatIds())] == NAMES
    assert sorted(read.getAnnIds()) == list(range(1, 10))
    for image in read.loadImgs(read.getImgIds()):
        assert (bench.folder / "images" / image["file_name"]).is_file()
        found = read.loadAnns(read.getAnnIds(imgIds=image["id"]))
        assert len(found) == 3
        seen = np.zeros(SIZE_HW, np.int64)
        label_map = bench.mask(image["file_name"][: -len(".png")])
        for each in found:
            mask = read.annToMask(each).astype(bool)
            seen += mask
            assert np.array_equal(mask, label_map == each["category_id"] - 1)
            rows, columns = np.nonzero(mask)
            left, top, width, height = each["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width - 1, top + height - 1) == (columns.max(), rows.max())
            assert each["area"] == mask.sum()
            assert each["provenance"]["annotator"] == 8
        assert seen.max() == 1, "panoptic: a pixel has one region at most"
        assert [each.get("score") for each in found] == [0.25, None, None]


def test_the_rule_is_in_the_file_and_hidden_regions_are_not(
    one_task: Callable[..., Bench],
) -> None:
    bench = one_task(brush_region(SKY, "sky"), brush_region(rectangle(3, 3, 9, 9), "road"))
    bench.done(formats=("coco",))
    told = json.loads((bench.folder / "annotations/instances_train.json").read_text())
    assert told["info"]["overlap"] == "label-order"
    assert "lowest value" in told["info"]["overlap_rule"]
    assert [each["category_id"] for each in told["annotations"]] == [1]
    bench.done(formats=("coco",), overlap="smallest")
    told = json.loads((bench.folder / "annotations/instances_train.json").read_text())
    assert [each["area"] for each in told["annotations"]] == [SKY.sum() - 36, 36]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_run_lengths_are_those_of_cocos_own_encoder(share: float) -> None:
    random = np.random.default_rng(5)
    for height, width in [(1, 1), (1, 7), (7, 1), (13, 9)]:
        owners = np.where(random.random((height, width)) < share, random.integers(0, 3, width), -1)
        regions = tuple(LabelledRegion.of("sky", owners == index) for index in range(3))
        image = LabelledImage("a", (height, width), regions)
        found = coco.coco_annotations(image, owners.astype(np.int32), ClassTable.of(["sky"]))
        expected = [
            coco_mask.encode(np.asfortranarray(owners == index, np.uint8))
            for index in range(3)
            if (owners == index).any()
        ]
        assert [each["segmentation"]["counts"] for each in found] == [
            each["counts"].decode() for each in expected
        ]
        assert [each["segmentation"]["size"] for each in found] == [
            each["size"] for each in expected
        ]


def test_each_part_is_a_file(bench: Bench) -> None:
    for n in range(1, 21):
        source = bench.add(f"{n}.png", picture_bytes(n))
        bench.tasks.append(task(n, source, [annotation(n, [brush_region(SKY, "sky")])]))
    report = bench.done(formats=("coco",), split=Split.parse("60/40"))
    for part, count in report.parts.items():
        read = COCO(bench.folder / f"annotations/instances_{part}.json")
        assert len(read.imgs) == len(read.anns) == count
    bench.tasks = []
    bench.done(formats=("coco",))
    assert not (bench.folder / "annotations/instances_val.json").exists()
    assert COCO(bench.folder / "annotations/instances_train.json").imgs == {}
