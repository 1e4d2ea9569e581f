"""Protocols of later methods; the paper's own benchmarks stay as they are."""

from __future__ import annotations

import numpy as np

from clearclip_core import METHODS, Method
from clearclip_core.evaluation.datasets.benchmarks import BENCHMARKS
from clearclip_core.evaluation.datasets.protocols import PROTOCOLS, benchmark_for, method_for
from clearclip_core.segmentation.text_side import TextSide


def test_methods_of_the_paper_are_measured_as_the_paper_does() -> None:
    for name, benchmark in BENCHMARKS.items():
        for method in (METHODS["clearclip"], METHODS["gem"], Method("kk", residual=True)):
            assert benchmark_for(name, method) is benchmark


def test_protocols_belong_to_presets_and_leave_drawn_scenes_alone() -> None:
    assert PROTOCOLS.keys() <= METHODS.keys()
    for name in PROTOCOLS:
        assert benchmark_for("demo", METHODS[name]) is BENCHMARKS["demo"]


def test_the_numbers_of_scclip_by_benchmark() -> None:
    """Short side, window, stride, scale, threshold and least share as its authors state them."""

    def numbers(benchmark: str) -> tuple[float, ...]:
        made = benchmark_for(benchmark, METHODS["scclip"])
        sizes = (made.short_side_px, made.window_px, made.stride_px)
        return (*sizes, made.temperature, made.threshold, made.least_share)

    assert numbers("voc21") == (336, 224, 112, 50, 0.15, 0.1)
    assert numbers("coco_object") == (336, 224, 112, 55, 0.35, 0)
    assert numbers("context60") == (336, 224, 112, 40, 0.15, 0)
    assert numbers("cityscapes") == (560, 224, 112, 40, 0, 0)
    assert numbers("ade20k") == (336, 224, 112, 40, 0, 0)


def test_what_the_other_presets_have_of_their_own() -> None:
    assert benchmark_for("ade20k", METHODS["sfp"]).short_side_px == 384
    assert benchmark_for("voc21", METHODS["rfclip"]).window_px == 2048
    assert benchmark_for("voc20", METHODS["rfclip"]).window_px == 224
    assert benchmark_for("ade20k", METHODS["rfclip"]).text_side == TextSide(0.3, 0.05, 0.06)
    by_window = TextSide(0.1, 0.03, 0.14, by_window=True)
    assert benchmark_for("cityscapes", METHODS["rfclip"]).text_side == by_window
    assert benchmark_for("ade20k", METHODS["scclip"]).text_side is None
    assert benchmark_for("voc20", METHODS["pearl"]).window_px == 2048
    assert benchmark_for("context60", METHODS["naclip"]).threshold == 0.1
    assert method_for("ade20k", METHODS["pearl"]).key_weight == 0.3
    assert method_for("voc20", METHODS["pearl"]) == METHODS["pearl"]
    assert method_for("ade20k", METHODS["naclip"]) == METHODS["naclip"]


def test_labels_of_a_small_share_become_background() -> None:
    benchmark = benchmark_for("voc21", METHODS["scclip"])
    label_map = np.full((10, 10), -1, np.int16)
    label_map[0, :9], label_map[0, 9] = 3, 7  # of ten labelled pixels nine and one
    label_map[1] = 0
    decided = benchmark.decision(label_map)
    assert (decided[0] == [3] * 9 + [0]).all()
    assert (decided[1:] == 0).all()
