"""Pictures of figures: what they show, asked of matplotlib's own objects."""

from __future__ import annotations

import itertools

import pytest

from clearclip_core import Method
from clearclip_core.paper.figures import (
    averages,
    draw_alphas,
    draw_combinations,
)
from clearclip_core.paper.tables import STUDIES
from tests.core.evaluation.factories import ablation

FIVE, SIX = STUDIES["figure5"], STUDIES["figure6"]


def rising(methods: tuple[Method, ...], step: float) -> dict[Method, float]:
    return {method: step * (index + 1) for index, method in enumerate(methods)}


def test_models_are_averaged_over_their_benchmarks() -> None:
    found = [
        ablation("voc20", rising(FIVE, 0.01)),
        ablation("ade20k", rising(FIVE, 0.03)),
        ablation("voc20", rising(FIVE, 0.02), model="demo", limit=9),
        ablation("voc20", rising(FIVE[:3], 0.02), model="ViT-L-14/openai"),  # not complete
    ]
    panels = averages(found, FIVE)
    assert list(panels) == [
        "ViT-B-16/openai, fp16\nmean of VOC20, ADE20k",
        "demo, fp16\nVOC20 (only 9 pictures)",
    ]
    first, second = panels.values()
    assert first[FIVE[4]] == pytest.approx(100 * 0.02 * 5)
    assert second[FIVE[19]] == pytest.approx(100 * 0.02 * 20)


def test_bars_are_as_high_as_the_scores() -> None:
    miou = {method: float(index) for index, method in enumerate(FIVE)}
    axes = draw_combinations({"one": rising(FIVE, 0.5), "two": miou}).axes[1]
    assert len(axes.patches) == 20
    for bar_group, (residual, ffn) in zip(
        axes.containers, [(True, True), (True, False), (False, True), (False, False)], strict=True
    ):
        heights = [bar.get_height() for bar in bar_group]
        names = ["qk", "identity", "vv", "kk", "qq"]
        assert heights == [miou[Method(name, residual, ffn)] for name in names]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["q-k", "I", "v-v", "k-k", "q-q"]
    xs = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
    assert all(right <= left for (_, right), (left, _) in itertools.pairwise(xs))


def test_lines_go_through_the_scores() -> None:
    miou = {method: float(index) for index, method in enumerate(SIX)}
    (axes,) = draw_alphas({"one": miou}).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"q-k", "I", "v-v", "k-k", "q-q"}
    line = lines["v-v"]
    assert list(line.get_xdata()) == [0.1, 0.5, 1, 2, 10, 100]
    assert list(line.get_ydata()) == [miou[Method("vv", True, True, a)] for a in line.get_xdata()]
    assert axes.get_xscale() == "log"
