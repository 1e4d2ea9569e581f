"""The table, held to the paper's Sec. 4.1 and its released settings."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core import SCENE_LABELS, load_model
from clearclip_core.evaluation.benchmarks import BENCHMARKS, Benchmark


def test_with_background_there_is_one_class_more() -> None:
    for without, with_one in (("voc20", "voc21"), ("context59", "context60")):
        classes = BENCHMARKS[with_one].classes
        assert classes == ("background", *BENCHMARKS[without].classes)
        assert BENCHMARKS[with_one].has_background
        assert not BENCHMARKS[without].has_background
    assert BENCHMARKS["demo"].classes == SCENE_LABELS


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
