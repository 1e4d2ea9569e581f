"""COCO files of all kinds of masks, made by COCO's API, damaged ones, and ours read by it."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_api
from pycocotools.coco import COCO
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

from backend.dataset.formats import coco as coco_json
from backend.dataset.formats.coco import draw_runs, read_coco, read_runs, runs_of
from backend.dataset.mask_source import Limits, MaskSource
from backend.dataset.splits import Split
from backend.errors import DatasetError
from tests.backend.dataset.drawn_tasks import (
    NAMES,
    SIZE_HW,
    Bench,
    bitmask_region,
    brush_region,
    rectangle,
)

MASK = np.zeros((40, 60), np.bool_)
MASK[5:20, 10:30] = True
COMPRESSED = coco_api.encode(np.asfortranarray(MASK, np.uint8))["counts"].decode()
RUNS = [405, *([15, 25] * 19), 15, 1220]
CORNERS = [[10, 5, 30, 5, 30, 20, 10, 20]]


def content(segmentation: Any = None, **more: Any) -> dict[str, Any]:
    annotation = {"id": 5, "image_id": 3, "category_id": 1, "segmentation": segmentation or CORNERS}
    return {
        "info": {"description": "x"},
        "annotations": [annotation | more],  # before what they refer to
        "images": [
            {"id": 3, "file_name": "val/ü.jpg", "height": 40, "width": 60},
            {"id": 4, "file_name": "empty.jpg", "height": 2, "width": 2},
        ],
        "categories": [{"id": 1, "name": "traffic light"}, {"id": 9, "name": "sky"}],
    }


def read(folder: Path, found: Any) -> list[MaskSource]:
    (folder / "instances.json").write_text(json.dumps(found))
    return list(read_coco(folder, None))


@pytest.mark.parametrize(
    "segmentation",
    [
        CORNERS,
        {"size": [40, 60], "counts": COMPRESSED},
        {"size": [40, 60], "counts": RUNS},
        [[10, 5, 20, 5, 20, 20, 10, 20], [20, 5, 30, 5, 30, 20, 20, 20]],
    ],
)
def test_every_kind_of_mask_has_its_pixels(tmp_path: Path, segmentation: Any) -> None:
    made = content(segmentation, score=0.5)
    made["images"][1]["extra"] = {"name": "ü.jpg"}  # as Roboflow says the name before its own
    source, empty = read(tmp_path, made)
    assert (source.name, source.size_hw, source.other_name) == ("val/ü.jpg", (40, 60), "")
    assert (empty.name, empty.other_name) == ("empty.jpg", "ü.jpg")
    (region,) = source.read_regions((40, 60))
    assert (region.label, region.score) == ("traffic light", 0.5)
    np.testing.assert_array_equal(region.read_mask(), MASK)
    assert list(empty.read_regions((2, 2))) == []


@pytest.mark.parametrize("path", ["annotations/{}.json", "{}/_annotations.coco.json"])
def test_all_files_of_a_data_set_are_read(tmp_path: Path, path: str) -> None:
    for part in ("train", "valid"):
        file = tmp_path / path.format(part)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content()))
    if path.startswith("annotations"):
        (tmp_path / "other.json").write_text("{")
    assert [each.name for each in read_coco(tmp_path, None)] == ["val/ü.jpg", "empty.jpg"] * 2
    assert len(list(read_coco(file, None))) == 2


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [40, 60], "counts": [2400, 1]}, "2\u202f401 pixels, but it is 60×40 px"),
        ({"size": [60, 40], "counts": COMPRESSED}, "its mask is 40×60 px"),
        ({"size": [40, 60], "counts": COMPRESSED[:-1] + "o"}, "damaged or cut off"),
        ({"size": [40, 60], "counts": [1, -1]}, "Expected `int` >= 0"),
        ([[1, 2, 3]], "no pairs of numbers"),
        ([[0, 0, 1e7, 0, 0, 1e7]] * 90_000, "more than 1 MB"),
    ],
)
def test_a_broken_mask_is_a_sentence_of_its_picture(
    tmp_path: Path, segmentation: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_json, "_MAX_SHAPE", 1 << 20)
    source, _ = read(tmp_path, content(segmentation))
    (region,) = source.read_regions((40, 60))
    with pytest.raises(DatasetError, match=f"ü.jpg: the annotation 5 is broken, .*({reason})"):
        region.read_mask()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": []}, "0 images"),
        ({"images": [{"id": 3, "file_name": " "}]}, "file_name"),
        ({"images": [{"id": 3, "file_name": "a"}] * 2}, "two images of one id"),
        ({"categories": [{"id": "1", "name": "a"}]}, "Expected `int`, got `str`"),
        ({"categories": [{"id": 9, "name": "sky"}]}, "no category 1, which the annotation 5"),
        ({"annotations": [{"id": 5, "image_id": 99, "category_id": 1}]}, "list the image 99"),
    ],
)
def test_incoherent_files_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        read(tmp_path, content() | change)


def test_files_too_large_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, reason in (("[" + "{}," * 1_100_000 + "{}]", "too many"), ("[" * 10_000, "no COCO")):
        (tmp_path / "instances.json").write_text(text)
        with pytest.raises(DatasetError, match=reason):
            list(read_coco(tmp_path, None))
    monkeypatch.setattr(coco_json, "_FILE_LIMITS", Limits(max_file_mb=0))
    with pytest.raises(DatasetError, match="limit of 0 MB"):
        list(read_coco(tmp_path, None))


@pytest.mark.parametrize("segmentation", [[[1, 2, 3, 4]], [], [[1, 1, 9, 1, 5, 1]]])
def test_a_polygon_or_box_without_an_area_has_no_pixel(tmp_path: Path, segmentation: Any) -> None:
    found = content()
    found["annotations"][0]["segmentation"] = segmentation
    (region,) = read(tmp_path, found)[0].read_regions((40, 60))
    assert region.id == "the annotation 5"
    assert not region.read_mask().any()


def test_results_need_the_file_of_their_images(tmp_path: Path) -> None:
    rle = {"size": [40, 60], "counts": COMPRESSED}
    results = [{"image_id": 3, "category_id": 9, "segmentation": rle, "score": 0.75}]
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "val.json").write_text(json.dumps(content()))
    with pytest.raises(DatasetError, match="by --names"):
        list(read_coco(tmp_path / "results.json", None))
    (source,) = read_coco(tmp_path / "results.json", tmp_path / "val.json")
    (region,) = source.read_regions((40, 60))
    assert (source.name, region.label, region.score) == ("val/ü.jpg", "sky", 0.75)
    np.testing.assert_array_equal(region.read_mask(), MASK)


def test_masks_of_segment_anything(tmp_path: Path) -> None:
    """As SA-1B has them, and as the mask generator returns them."""
    masks = [{"segmentation": {"size": [40, 60], "counts": COMPRESSED}, "predicted_iou": 0.5}]
    image = {"image_id": 7, "file_name": "sa_7.jpg", "height": 40, "width": 60}
    (tmp_path / "sa_7.json").write_text(json.dumps({"annotations": masks, "image": image}))
    (tmp_path / "b.json").write_text(json.dumps(masks))
    sources = list(read_coco(tmp_path, None))
    assert [each.name for each in sources] == ["b", "sa_7.jpg"]
    for source in sources:
        (region,) = source.read_regions((40, 60))
        assert (region.label, region.score) == ("object", 0.5)
        np.testing.assert_array_equal(region.read_mask(), MASK)


def test_parts_are_united_and_what_lies_outside_is_cut_off(tmp_path: Path) -> None:
    found = content([[-50, -50, 2, -50, 2, 2, -50, 2], [1, 1, 3, 1, 3, 900, 1, 900]])
    found["images"][0] |= {"height": 4, "width": 4}
    (region,) = read(tmp_path, found)[0].read_regions((4, 4))
    expected = np.zeros((4, 4), bool)
    expected[:2, :2] = expected[1:, 1:3] = True
    np.testing.assert_array_equal(region.read_mask(), expected)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 1])
def test_runs_are_those_of_the_coco_api(share: float) -> None:
    size = 71, 83
    mask = np.random.default_rng(1).random(size) < share
    encoded = coco_api.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    np.testing.assert_array_equal(draw_runs(read_runs(encoded), size), mask)
    length = (1 << 28) + 5  # several groups
    rle = coco_api.frPyObjects({"size": [length, 1], "counts": [length]}, length, 1)
    assert read_runs(rle["counts"].decode()).tolist() == [length]


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_runs_are_of_the_mask(mask: npt.NDArray[np.bool_]) -> None:
    """pycocotools draws lists of runs by `frPyObjects`, as torchvision's reference script does."""
    height, width = mask.shape
    rle = coco_api.frPyObjects({"size": [height, width], "counts": runs_of(mask).tolist()}, 0, 0)
    np.testing.assert_array_equal(coco_api.decode(rle), mask)


@pytest.mark.parametrize("counts", ["P", "oooooooooooo0", "~", "@"])
def test_what_are_no_runs_is_refused(counts: str) -> None:
    """Cut off in a group, of 60 bits, no digits, and a negative run."""
    with pytest.raises(ValueError, match="it"):
        read_runs(counts)


def test_an_area_that_is_no_number_costs_nothing(tmp_path: Path) -> None:
    """As NumPy and pandas write it; a mask of such numbers costs itself."""
    found = content(area=float("nan"), bbox=[float("inf"), -float("inf"), 1, 1])
    broken = found["annotations"][0] | {"id": 6, "segmentation": [[float("nan")] * 6]}
    found["annotations"].append(broken)
    good, bad = read(tmp_path, found)[0].read_regions((40, 60))
    assert np.array_equal(good.read_mask(), MASK)
    with pytest.raises(DatasetError, match="the annotation 6 is broken"):
        bad.read_mask()


# ---- writing -------------------------------------------------------------------------------------

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


@pytest.fixture
def drawn(bench: Bench) -> dict[str, list[tuple[int, Any]]]:
    """A data set of twelve pictures in all formats: file -> class and mask of each object."""
    found: dict[str, list[tuple[int, Any]]] = {}
    random = np.random.default_rng(7)
    for n in range(1, 13):
        top, left = random.integers(0, 10, 2).tolist()
        car = rectangle(top + 9, left, top + 20, left + 20)
        road = rectangle(top, left, top + 25, left + 40) & ~rectangle(top + 5, 30, top + 9, 40)
        regions = [brush_region(road, "road", id="r"), bitmask_region(car, "c", id="c")]
        name = f"bär {n}.png"
        bench.draw(name, *regions)
        found[name] = [(NAMES.index("road"), road), (NAMES.index("car"), car)]
    formats = ("index-png", "coco", "yolo", "parquet")
    bench.done(formats=formats, split=Split.parse("60/40"))
    return found


def test_datasets_of_hugging_face(
    bench: Bench, drawn: dict[str, list[tuple[int, Any]]], tmp_path: Path
) -> None:
    loaded = datasets.load_dataset(str(bench.folder), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "validation"}
    assert loaded["train"].features["labels"].feature.names == NAMES
    rows = [row for part in loaded.values() for row in part]
    assert {row["name"] for row in rows} == {Path(name).stem for name in drawn}
    for row in rows:
        ((road, road_mask), (car, car_mask)) = drawn[f"{row['name']}.png"]
        expected = np.full(SIZE_HW, 255)
        expected[road_mask] = road
        expected[car_mask] = car  # which was drawn later
        np.testing.assert_array_equal(np.asarray(row["mask"]), expected)
        assert row["labels"] == [road, car]
        assert row["image"].size == SIZE_HW[::-1]


def test_torchvision(bench: Bench, drawn: dict[str, list[tuple[int, Any]]]) -> None:
    seen = set()
    for part in ("train", "val"):
        file = bench.folder / f"annotations/instances_{part}.json"
        pictures = CocoDetection(str(bench.folder / "images"), str(file))
        names = [each["file_name"] for each in pictures.coco.loadImgs(pictures.ids)]
        wrapped = wrap_dataset_for_transforms_v2(pictures, target_keys=("masks", "labels"))
        for name, (_, target) in zip(names, wrapped, strict=True):
            assert (target["labels"] - 1).tolist() == [each for each, _ in drawn[name]]
            for mask, (_, expected) in zip(target["masks"].numpy(), drawn[name], strict=True):
                np.testing.assert_array_equal(mask, expected)
        seen.update(names)
    assert seen == set(drawn)
