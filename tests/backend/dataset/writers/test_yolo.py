"""YOLO's polygons drawn again by Pillow, and its data file read by a YAML parser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from backend.dataset.labelled_image import ClassTable, LabelledImage, LabelledRegion
from backend.dataset.splits import Split
from backend.dataset.writers.yolo import outlines, yolo_lines
from clearclip_core import SCENE_LABELS, render_scene
from tests.backend.dataset.exported_tasks import (
    NAMES,
    SIZE_HW,
    Bench,
    annotation,
    brush_region,
    picture_bytes,
    rectangle,
    task,
)


def draw(text: str, size_hw: tuple[int, int]) -> dict[int, Any]:
    """Value of a class -> its mask, as Pillow fills the polygons, edges included."""
    found: dict[int, Any] = {}
    for line in text.splitlines():
        value, *numbers = line.split()
        shares = np.array(numbers, float).reshape(-1, 2)
        assert len(shares) >= 3
        assert ((shares >= 0) & (shares <= 1)).all()
        points = shares * (size_hw[1], size_hw[0]) - 0.5
        canvas = Image.new("1", size_hw[::-1])
        ImageDraw.Draw(canvas).polygon(
            [tuple(point) for point in points.round()], fill=1, outline=1
        )
        mask = np.asarray(canvas)
        found[int(value)] = found.get(int(value), False) | mask
    return found


def iou(one: Any, two: Any) -> float:
    return float((one & two).sum() / (one | two).sum())


def blobs(size_hw: tuple[int, int]) -> Any:
    """Islands, bays and holes."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    waves = np.sin(x / 37) + np.cos(y / 29) + np.sin((x + y) / 53)
    return (waves > 0.2) & (np.hypot(x - 300, y - 250) > 40)


def test_polygons_cover_what_the_masks_cover(bench: Bench) -> None:
    size = (700, 1000)
    mask = blobs(size)
    source = bench.add("a.png", picture_bytes(1, size))
    regions = [brush_region(mask, "sky"), brush_region(~mask, "road")]
    bench.tasks = [task(1, source, [annotation(1, regions)])]
    bench.done(formats=("yolo",))
    found = draw((bench.folder / "labels/a.txt").read_text(), size)
    assert sorted(found) == [0, 1]
    assert iou(found[0], mask) >= 0.995
    assert iou(found[1], ~mask) >= 0.995


@pytest.mark.parametrize("box", [(3, 4, 4, 5), (3, 4, 4, 9), (3, 4, 9, 5), (0, 0, 40, 60)])
def test_thin_and_whole_masks_are_lines_too(
    one_task: Callable[..., Bench], box: tuple[int, int, int, int]
) -> None:
    mask = rectangle(*box)
    bench = one_task(brush_region(mask, "road"))
    bench.done(formats=("yolo",))
    found = draw((bench.folder / "labels/a.txt").read_text(), SIZE_HW)
    assert np.array_equal(found[1], mask)


@pytest.mark.parametrize("seed", [702, 706])
def test_drawn_masks_are_the_same_for_trainers_that_cut_coordinates_off(seed: int) -> None:
    """Ultralytics makes whole numbers of the coordinates, and has OpenCV fill the polygon."""
    size_hw = (750, 1000)
    scene = Image.fromarray(render_scene(seed).label_map.astype(np.int32)).resize(size_hw[::-1], 0)
    values = np.asarray(scene)
    drawn = np.unique(values[values >= 0]).tolist()
    regions = [LabelledRegion.of(SCENE_LABELS[value], values == value) for value in drawn]
    image, classes = LabelledImage("a", size_hw, tuple(regions)), ClassTable.of(SCENE_LABELS)
    found = {value: np.zeros(size_hw, np.uint8) for value in drawn}
    for line in yolo_lines(image, image.owners(classes), classes).splitlines():
        value, *numbers = line.split()
        points = np.array(numbers, float).reshape(-1, 2) * size_hw[::-1]
        cv2.fillPoly(found[int(value)], [points.astype(np.int32)], 1)
    for value, mask in found.items():
        assert iou(mask.astype(bool), values == value) >= 0.99, SCENE_LABELS[value]


def test_a_hole_is_left_out() -> None:
    mask = rectangle(2, 2, 38, 58) & ~rectangle(10, 10, 30, 40)
    (outline,) = outlines(mask)
    canvas = Image.new("1", SIZE_HW[::-1])
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in outline.tolist()], fill=1, outline=1)
    assert iou(np.asarray(canvas), mask) >= 0.99


def test_the_data_file_names_lists_of_pictures_that_are_there(bench: Bench) -> None:
    bench.config = bench.config.replace('value="tree"', 'value="tree: &quot;é&quot; #1"')
    for n in range(1, 21):
        source = bench.add(f"ü {n}.png", picture_bytes(n))
        bench.tasks.append(task(n, source, [annotation(n, [])]))
    bench.done(formats=("yolo",), split=Split.parse("50/30/20"))
    told = yaml.safe_load((bench.folder / "data.yaml").read_text(encoding="utf-8"))
    assert list(told["names"].values()) == [*NAMES[:3], 'tree: "é" #1', "sign"]
    listed = []
    for part in ("train", "val", "test"):
        for line in (bench.folder / told[part]).read_text(encoding="utf-8").splitlines():
            picture = bench.folder / line
            assert picture.is_file()
            labels = line.replace("/images/", "/labels/").replace(".png", ".txt")
            assert (bench.folder / labels).is_file(), "where trainers look for it"
            listed.append(line)
    assert len(set(listed)) == 20
