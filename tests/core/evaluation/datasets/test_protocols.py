"""Protocols of later methods; the paper's own benchmarks stay as they are."""

from __future__ import annotations

import numpy as np

from clearclip_core import METHODS, Method
from clearclip_core.evaluation.benchmarks import BENCHMARKS, benchmark_for


def test_methods_of_the_paper_are_measured_as_the_paper_does() -> None:
    for name, benchmark in BENCHMARKS.items():
        for method in (METHODS["clearclip"], METHODS["gem"], Method("kk", residual=True)):
            assert benchmark_for(name, method) is benchmark


def test_labels_of_a_small_share_become_background() -> None:
    benchmark = benchmark_for("voc21", METHODS["scclip"])
    label_map = np.full((10, 10), -1, np.int16)
    label_map[0, :9], label_map[0, 9] = 3, 7  # of ten labelled pixels nine and one
    label_map[1] = 0
    decided = benchmark.decision(label_map)
    assert (decided[0] == [3] * 9 + [0]).all()
    assert (decided[1:] == 0).all()
