"""Pictures of a data set: which ones, under which masks, and what they say of its parts."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from backend.annotations.label_map import MapRule
from backend.dataset.dataset_report import DatasetReport
from backend.dataset.splits import Split
from backend.label_studio.label_config_parser import parse_label_config
from backend.runs.gallery import Gallery, GalleryMaker
from tests.backend.dataset.drawn_tasks import (
    SIZE_HW,
    Bench,
    brush_region,
    picture_bytes,
    rectangle,
    region,
    saved,
)

LEFT = rectangle(0, 0, 40, 30)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def made(bench: Bench, **options: Any) -> tuple[DatasetReport, Gallery]:
    """Write the data set of a bench; return its report and its pictures."""
    config = parse_label_config(bench.config, None)
    maker = GalleryMaker(config, MapRule(fills_rectangles=True, labels=config.names))
    report = bench.done(look=maker.add, **options)
    return report, maker.finish(report, bench.folder, 100)


def pixels(picture: str) -> npt.NDArray[np.uint8]:
    content = base64.b64decode(picture.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)))


def grey(bench: Bench, name: str, level: int) -> None:
    bench.add(name, saved(Image.new("RGB", SIZE_HW[::-1], (level,) * 3)))


def test_a_picture_is_shown_under_its_masks(bench: Bench) -> None:
    bench.draw("a.png", brush_region(LEFT, "road"))
    grey(bench, "a.png", 200)
    _, gallery = made(bench)
    (shown,) = gallery.images
    drawn = pixels(shown.picture).astype(int)
    assert np.abs(drawn[10:30, 35:55] - 200).max() <= 8, "nothing is drawn there"
    colour = np.array([*bytes.fromhex(gallery.colours["road"][1:])])
    expected = 0.35 * colour + 0.65 * 200
    assert np.abs(drawn[10:30, 5:25].mean(axis=(0, 1)) - expected).max() <= 8
    assert list(gallery.colours) == ["road"]


def test_rectangles_are_filled_where_label_maps_leave_them_out(bench: Bench) -> None:
    bench.config = bench.config.replace(' smart="true"><Label value="car"', '><Label value="car"')
    value = {"x": 0, "y": 0, "width": 50, "height": 100}
    bench.draw("a.png", region("rectanglelabels", "box", "c", value=value))
    grey(bench, "a.png", 200)
    _, gallery = made(bench)
    drawn = pixels(gallery.images[0].picture).astype(int)
    assert np.abs(drawn[10:30, 5:25] - 200).max() > 20


def test_chance_chooses_six_and_pictures_without_a_region_come_last(bench: Bench) -> None:
    for n in range(1, 10):
        bench.draw(f"{n}.png", *([brush_region(LEFT, "sky")] if n > 4 else []))
        bench.add(f"{n}.png", picture_bytes(n))
    _, gallery = made(bench)
    tasks = [each.task for each in gallery.images]
    assert len(tasks) == 6
    assert set(tasks[:5]) == {5, 6, 7, 8, 9}
    assert tasks == [each.task for each in made(bench)[1].images], "the same once more"


def test_a_class_that_a_part_lacks_is_shown(bench: Bench) -> None:
    for n in range(4):
        bench.draw(f"{n}.png", brush_region(LEFT, "road" if n == 2 else "sky"))
        bench.add(f"{n}.png", picture_bytes(n))
    _, gallery = made(bench, split=Split.parse("50/50"))
    assert list(gallery.lacked) == ["road"], "not those that no part has"
    parts = {each["task"]: each["part"] for each in bench.told()}
    shown = gallery.lacked["road"]
    assert shown.part == parts[shown.task]
    assert shown.picture.startswith("data:image/jpeg")


@pytest.mark.parametrize("pictures", ["copy", "none"])
def test_pairs_of_two_parts_show_the_pictures_of_the_set(bench: Bench, pictures: Any) -> None:
    for n in range(2):
        bench.draw(f"{n}.png", brush_region(LEFT, "sky"))
        noise = np.array(Image.open(io.BytesIO(picture_bytes(5))))
        noise[0, 0] = n
        bench.add(f"{n}.png", saved(Image.fromarray(noise)))
    report, gallery = made(bench, split=Split.parse("50/50"), pictures=pictures)
    (pair,) = gallery.alike
    assert [each.part for each in pair.images] == ["train", "val"]
    assert {each.task for each in pair.images} == {each.task for each in report.alike[0].images}
    is_there = [each.picture.startswith("data:image/jpeg") for each in pair.images]
    assert is_there == [pictures == "copy"] * 2


def test_the_report_of_a_run_keeps_them_as_json(bench: Bench) -> None:
    bench.draw("a.png", brush_region(LEFT, "road"))
    _, gallery = made(bench)
    assert msgspec.json.decode(msgspec.json.encode(gallery), type=Gallery) == gallery
