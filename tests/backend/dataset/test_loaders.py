"""Data sets in the loaders that people train with: every mask as it was drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import supervision
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

from backend.dataset.splits import Split
from tests.backend.dataset.drawn_tasks import (
    NAMES,
    SIZE_HW,
    Bench,
    bitmask_region,
    brush_region,
    rectangle,
)


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


def check(
    found: Iterator[tuple[str, list[int], Any]], drawn: dict[str, list[tuple[int, Any]]]
) -> None:
    """Compare the name, classes and masks (N, H, W) of pictures with what was drawn."""
    seen = set()
    for name, classes, masks in found:
        assert classes == [each for each, _ in drawn[name]]
        for mask, (_, expected) in zip(masks, drawn[name], strict=True):
            np.testing.assert_array_equal(mask, expected)
        seen.add(name)
    assert seen == set(drawn)


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
    def read() -> Iterator[tuple[str, list[int], Any]]:
        for part in ("train", "val"):
            file = bench.folder / f"annotations/instances_{part}.json"
            pictures = CocoDetection(str(bench.folder / "images"), str(file))
            names = [each["file_name"] for each in pictures.coco.loadImgs(pictures.ids)]
            wrapped = wrap_dataset_for_transforms_v2(pictures, target_keys=("masks", "labels"))
            for name, (_, target) in zip(names, wrapped, strict=True):
                labels = (target["labels"] - 1).tolist()
                yield name, labels, target["masks"].numpy().astype(bool)

    check(read(), drawn)


def test_supervision(bench: Bench, drawn: dict[str, list[tuple[int, Any]]]) -> None:
    def read() -> Iterator[tuple[str, list[int], Any]]:
        for file in (bench.folder / "annotations").iterdir():
            images = str(bench.folder / "images")
            part = supervision.DetectionDataset.from_coco(images, str(file), force_masks=True)
            assert part.classes == NAMES
            for path, _, found in part:
                yield Path(path).name, found.class_id.tolist(), found.mask

    check(read(), drawn)
