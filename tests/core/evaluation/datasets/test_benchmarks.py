"""The table, held to the paper's Sec. 4.1 and its released settings."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from clearclip_core import SCENE_LABELS, Preprocessing, load_model
from clearclip_core.evaluation.datasets.benchmarks import BENCHMARKS, Benchmark

#: The page that says what each benchmark is.
PAGE = Path(__file__).parents[4] / "docs" / "library" / "reproducing-the-paper.md"

#: name -> classes, whether 0 is left out, threshold, window and stride.
PAPER = {
    "voc20": (20, True, 0, 448, 224),
    "voc21": (21, False, 0.5, 448, 224),
    "context59": (59, True, 0, 448, 224),
    "context60": (60, False, 0.15, 448, 224),
    "coco_stuff": (171, False, 0, 448, 224),
    "coco_object": (81, False, 0.4, 448, 224),
    "cityscapes": (19, False, 0, 224, 224),
    "ade20k": (150, True, 0, 448, 224),
}


def test_the_table_is_the_papers() -> None:
    rows = {
        name: (len(b.classes), b.reduce_zero_label, b.threshold, b.window_px, b.stride_px)
        for name, b in BENCHMARKS.items()
        if name != "demo"
    }
    assert rows == PAPER


def test_with_background_there_is_one_class_more() -> None:
    for without, with_one in (("voc20", "voc21"), ("context59", "context60")):
        classes = BENCHMARKS[with_one].classes
        assert classes == ("background", *BENCHMARKS[without].classes)
        assert BENCHMARKS[with_one].has_background
        assert not BENCHMARKS[without].has_background
    assert BENCHMARKS["demo"].classes == SCENE_LABELS


def test_every_model_gets_the_papers_colours_and_the_demo_its_own() -> None:
    model = load_model("demo", device="cpu")
    assert BENCHMARKS["ade20k"].preprocessing(model) == Preprocessing(
        mean=(122.771, 116.746, 104.094), std=(68.501, 66.632, 70.323)
    )
    assert BENCHMARKS["demo"].preprocessing(model) == Preprocessing(model.mean, model.std)


def test_sizes_are_mmsegmentations() -> None:
    """Its Resize to (2048, 448): as large as fits both, rounded to the nearest."""
    model = load_model("demo", device="cpu")
    sizes = BENCHMARKS["cityscapes"].preprocessing(model)
    assert sizes.resized_hw((1024, 2048)) == (448, 896)
    assert sizes.resized_hw((375, 500)) == (448, 597)
    assert sizes.resized_hw((100, 1000)) == (205, 2048)
    larger = BENCHMARKS["voc20"].preprocessing(model, short_side_px=672)
    assert (larger.short_side_px, larger.long_side_px, larger.window_px) == (672, 3072, 448)


def test_zero_is_left_out_where_it_names_nothing() -> None:
    label_map = np.array([[0, 1, 2], [255, 59, 58]], np.uint8)
    assert BENCHMARKS["context59"].truth(label_map).tolist() == [[255, 0, 1], [255, 58, 57]]
    assert BENCHMARKS["context60"].truth(label_map).tolist() == label_map.tolist()


@pytest.mark.parametrize(
    ("benchmark", "value", "sentence"),
    [
        ("voc20", 21, "label map of voc20 to hold 0 to 20 and 255, but got 21"),
        ("voc21", 21, "label map of voc21 to hold 0 to 20 and 255, but got 21"),
        ("coco_stuff", 181, "label map of coco_stuff to hold 0 to 170 and 255, but got 181"),
        ("cityscapes", 33, "to hold 0 to 18 and 255, but got 33"),
    ],
)
def test_a_value_that_is_no_class_is_refused(benchmark: str, value: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        BENCHMARKS[benchmark].truth(np.array([[0, value]], np.uint8))


def test_what_has_no_label_becomes_background() -> None:
    label_map = np.array([[-1, 3, 0]], np.int16)
    assert BENCHMARKS["voc21"].decision(label_map).tolist() == [[0, 3, 0]]
    assert BENCHMARKS["voc20"].decision(label_map).tolist() == [[-1, 3, 0]]


def test_a_threshold_needs_a_background() -> None:
    with pytest.raises(ValueError, match=r"without a background class, but got 0\.3"):
        Benchmark("own", "own", ("sky", "tree"), None, threshold=0.3)


def test_the_page_names_every_benchmark_and_what_its_folder_holds() -> None:
    lines = PAGE.read_text().splitlines()
    start = lines.index("| benchmark | classes | `--data` is the folder that holds |") + 2
    named = {}
    for line in lines[start : start + 7]:
        names, count, folder = (cell.strip() for cell in line.strip("|").split("|"))
        for name in re.findall(r"`(\w+)`", names):
            named[name] = (int(re.match(r"\d+", count)[0]), folder)  # type: ignore[index]
    assert list(named) == list(BENCHMARKS)
    for name, (count, folder) in named.items():
        benchmark = BENCHMARKS[name]
        assert count == len(benchmark.classes) - benchmark.has_background
        if benchmark.layout is not None:
            layout = benchmark.layout
            for part in (layout.pictures, layout.maps, layout.listing or layout.maps):
                assert part in folder
            suffix = layout.map_suffix.removeprefix("_gtFine")
            assert suffix == ".png" or f"*{suffix}" in folder
