"""Figures: what they show, asked of matplotlib's own objects."""

import itertools

import numpy as np
import pytest

from clearclip_core import Method
from clearclip_core.paper.feature_statistics import MapExample
from clearclip_core.paper.figures import (
    averages,
    draw_alphas,
    draw_combinations,
    draw_examples,
    draw_layers,
    draw_norms,
)
from clearclip_core.paper.tables import STUDIES
from tests.core.evaluation.factories import results
from tests.core.paper.test_feature_statistics import made_up

TOWERS = [made_up("DINO", layers=12), made_up("ViT-L-14/openai", pictures=3, layers=24)]


def test_norms_are_drawn_by_attention_and_by_layer() -> None:
    figure = draw_norms(TOWERS)
    assert len(figure.axes) == 4
    above, below = figure.axes[1], figure.axes[3]
    assert above.get_title() == "ViT-L-14/openai"
    heights = [bar.get_height() for bar in above.containers[-1]]
    assert heights == pytest.approx(TOWERS[1].attention_norm.mean(axis=0))
    names = [label.get_text() for label in above.get_xticklabels()]
    assert names == ["q-k", "I", "v-v", "k-k", "q-q"]
    for index, line in enumerate(below.lines):
        x, y = line.get_data()
        assert list(x) == list(range(1, 25))
        assert y == pytest.approx(TOWERS[1].norm[:, index].mean(axis=0))


def test_layers_are_drawn_tower_by_tower() -> None:
    figure = draw_layers(TOWERS)
    assert len(figure.axes) == 6
    for row, tower in enumerate(TOWERS):
        entropy, maximum, channels = figure.axes[3 * row : 3 * row + 3]
        assert tower.name in entropy.get_ylabel()
        for axis, table in ((entropy, tower.entropy), (maximum, tower.maximum)):
            for index, line in enumerate(axis.lines):
                assert line.get_ydata() == pytest.approx(table[:, index].mean(axis=0))
        for index, line in enumerate(channels.lines):
            assert line.get_ydata() == pytest.approx(tower.channel_means[:, index].mean(axis=0))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["$X_{sum}$", "$X_{res}$", "$X_{attn}$"]
    assert "pictures: 2 or 3" in figure.get_supxlabel()


def example(name: str = "ViT-B-16/openai") -> MapExample:
    """20 rows; the left halves are sky, the right ones sea, one pixel is a ship, and some none."""
    label_map = np.zeros((20, 30), np.int16)
    label_map[:, 15:] = 1
    label_map[0, 0], label_map[1:6, :5] = 2, -1
    maps = {"X_sum": label_map, "X_res": label_map[:, ::-1], "X_attn": label_map}
    image = np.full((20, 30, 3), 100, np.uint8)
    return MapExample(name, image, ("sky", "sea", "ship"), {**maps, "ClearCLIP": label_map})


def test_examples_are_drawn_under_their_labels_colours() -> None:
    figure = draw_examples([example(), example("demo")])
    rows = np.reshape(figure.axes, (2, 5))
    titles = ["picture", "$X_{sum}$", "$X_{res}$", "$X_{attn}$", "ClearCLIP"]
    assert [axis.get_title() for axis in rows[0]] == titles
    assert [row[0].get_ylabel() for row in rows] == ["ViT-B-16/openai", "demo"]
    picture, by_sum, by_residual = (np.asarray(axis.images[0].get_array()) for axis in rows[1][:3])
    assert np.array_equal(picture, example().image)
    sky, sea = (patch.get_facecolor()[:3] for patch in figure.legends[0].legend_handles)
    for colour, column in ((sky, 10), (sea, 20)):
        expected = np.rint(0.7 * 255 * np.array(colour) + 0.3 * 100)
        assert by_sum[10, column] == pytest.approx(expected, abs=1)
        assert by_residual[10, 29 - column] == pytest.approx(expected, abs=1)
    assert by_sum[3, 2].tolist() == [100, 100, 100]  # none, and no contour there
    names = [text.get_text() for text in figure.legends[0].texts]
    assert names == ["sky", "sea"]  # one pixel needs no place in the legend


FIVE, SIX = STUDIES["figure5"], STUDIES["figure6"]


def rising(methods: tuple[Method, ...], step: float = 1) -> dict[Method, float]:
    return {method: step * (index + 1) for index, method in enumerate(methods)}


def test_models_are_averaged_over_their_benchmarks() -> None:
    found = [
        *results("voc20", rising(FIVE, 1)),
        *results("ade20k", rising(FIVE, 3)),
        *results("voc20", rising(FIVE, 2), model="demo", limit=9),
        *results("voc20", rising(FIVE[:3], 2), model="ViT-L-14/openai"),  # not complete
    ]
    panels = averages(found, FIVE)
    assert list(panels) == [
        "ViT-B-16/openai, fp16\nmean of VOC20, ADE20k",
        "demo, fp16\nVOC20 (only 9 pictures)",
    ]
    first, second = panels.values()
    assert first[FIVE[4]] == pytest.approx(2 * 5)
    assert second[FIVE[19]] == pytest.approx(2 * 20)


def test_bars_and_lines_are_as_high_as_the_scores() -> None:
    axes = draw_combinations({"one": rising(FIVE, 0.5), "two": rising(FIVE)}).axes[1]
    combinations = [(True, True), (True, False), (False, True), (False, False)]
    for bar_group, (residual, ffn) in zip(axes.containers, combinations, strict=True):
        names = ["qk", "identity", "vv", "kk", "qq"]
        heights = [rising(FIVE)[Method(name, residual, ffn)] for name in names]
        assert [bar.get_height() for bar in bar_group] == heights
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["q-k", "I", "v-v", "k-k", "q-q"]
    xs = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
    assert all(right <= left for (_, right), (left, _) in itertools.pairwise(xs))
    (axes,) = draw_alphas({"one": rising(SIX)}).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"q-k", "I", "v-v", "k-k", "q-q"}
    alphas = [0.1, 0.5, 1, 2, 10, 100]
    heights = [rising(SIX)[Method("vv", True, True, alpha)] for alpha in alphas]
    assert np.array(lines["v-v"].get_data()).tolist() == [alphas, heights]
