"""COCO's files read by COCO's own reader."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools.coco import COCO

from backend.dataset.splits import Split
from tests.backend.dataset.drawn_tasks import (
    NAMES,
    SIZE_HW,
    Bench,
    bitmask_region,
    brush_region,
    rectangle,
)

SKY, ROAD = rectangle(0, 0, 20, 60), rectangle(15, 0, 40, 60)


def objects(bench: Bench, part: str = "train") -> dict[str, dict[int, Any]]:
    """Name of a picture's file -> id of an object -> its mask, by COCO's own reader."""
    read = COCO(bench.folder / f"annotations/instances_{part}.json")
    return {
        image["file_name"]: {
            each["id"]: read.annToMask(each).astype(bool)
            for each in read.loadAnns(read.getAnnIds(imgIds=image["id"]))
        }
        for image in read.loadImgs(read.getImgIds())
    }


def test_objects_come_back_in_every_pixel_as_they_were_drawn(bench: Bench) -> None:
    random = np.random.default_rng(2)
    drawn = {}
    for n in range(1, 4):
        drawn[f"größe {n}.png"] = masks = [random.random(SIZE_HW) < 0.5 for _ in range(4)]
        regions = [
            brush_region(masks[0], "sky", id="s", score=0.25),
            brush_region(masks[1], "road", id="r"),
            brush_region(masks[2], "road", id="r2"),
            bitmask_region(masks[3], "c", id="c"),
            brush_region(np.zeros(SIZE_HW, np.bool_), "sky", id="erased"),
        ]
        bench.draw(f"größe {n}.png", *regions, person=8)
    bench.done(formats=("coco",))
    read = COCO(bench.folder / "annotations/instances_train.json")
    assert [each["name"] for each in read.loadCats(read.getCatIds())] == NAMES
    for image in read.loadImgs(read.getImgIds()):
        assert (bench.folder / "images" / image["file_name"]).is_file()
        found = read.loadAnns(read.getAnnIds(imgIds=image["id"]))
        assert len(found) == 4
        for each, mask in zip(found, drawn[image["file_name"]], strict=True):
            assert np.array_equal(read.annToMask(each), mask)
            rows, columns = np.nonzero(mask)
            left, top, width, height = each["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width - 1, top + height - 1) == (columns.max(), rows.max())
            assert (each["area"], each["iscrowd"]) == (mask.sum(), 0)
            assert each["provenance"]["annotator"] == 8
        assert [each.get("score") for each in found] == [0.25, None, None, None]


def test_a_face_in_a_person_and_parts_of_one_thing(bench: Bench) -> None:
    left, right = rectangle(5, 5, 20, 20), rectangle(5, 40, 20, 50)
    bench.draw(
        "a.png",
        brush_region(SKY, "sky", id="person"),
        brush_region(rectangle(3, 3, 9, 9), "road", id="face", parentID="person"),
        bitmask_region(left, "c", id="front"),
        bitmask_region(right, "c", id="rear", parentID="front"),
    )
    bench.done(formats=("coco", "index-png"))
    found = list(objects(bench)["a.png"].values())
    assert [each.sum() for each in found] == [SKY.sum(), 36, (left | right).sum()]
    assert np.array_equal(found[2], left | right)
    (note,) = [each for each in bench.report()["notes"] if "cover" in each]
    assert f"{36 + left.sum() + right.sum()} pixels of theirs have another class" in note
    bench.tasks[0]["annotations"][0]["result"][3] |= {"parentID": None}
    bench.done(formats=("coco",))
    assert len(objects(bench)["a.png"]) == 4
    bench.done(formats=("coco",), by_label=True)
    assert [each.sum() for each in objects(bench)["a.png"].values()][2] == (left | right).sum()


def test_ids_stay_whatever_comes_and_goes(bench: Bench) -> None:
    for n in range(1, 7):
        regions = [brush_region(SKY, "sky", id=f"s{n}"), brush_region(ROAD, "road", id=f"r{n}")]
        bench.draw(f"{n}.png", *regions)
    bench.done(formats=("coco",))
    before = objects(bench)
    ids = [each for found in before.values() for each in found]
    assert len(set(ids)) == 12
    assert all(0 < each <= 1 << 48 for each in ids)
    del bench.tasks[2], bench.tasks[0]["annotations"][0]["result"][0]
    bench.done(formats=("coco",), split=Split.parse("50/50"))
    after = objects(bench) | objects(bench, "val")
    assert len(after) == 5
    assert all(set(found) <= set(before[name]) for name, found in after.items())
    assert [len(after[name]) for name in ("1.png", "2.png")] == [1, 2]
    bench.tasks = []
    bench.done(formats=("coco",))
    assert objects(bench) == {}
