"""Figures as a person finds them: files of a size for slides, and all of the data in them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip_core.figures import draw_layers, draw_norms, require_matplotlib, save_figures
from tests.core.test_statistics import made_up

TOWERS = [made_up("DINO", layers=12), made_up("ViT-L-14/openai", pictures=3, layers=24)]


def test_two_files_of_a_size_for_slides(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    written = save_figures(TOWERS, folder)
    assert written == [folder / "norms.png", folder / "layers.png"]
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) >= 1000
            assert np.asarray(picture.convert("L")).std() > 10  # not blank


def test_norms_are_drawn_by_attention_and_by_layer() -> None:
    figure = draw_norms(TOWERS)
    assert len(figure.axes) == 4
    above, below = figure.axes[1], figure.axes[3]
    assert above.get_title() == "ViT-L-14/openai"
    heights = [bar.get_height() for bar in above.containers[-1]]
    assert heights == pytest.approx(TOWERS[1].attention_norm.mean(axis=0))
    names = [label.get_text() for label in above.get_xticklabels()]
    assert names == ["q-k", "q-q", "k-k", "v-v", "identity"]
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
    assert [text.get_text() for text in legend.texts] == [
        "$X_{sum}$",
        "$X_{res}$",
        "$X_{attn}$",
    ]
    assert "Means over 2 or 3 pictures" in figure.get_supxlabel()


def test_every_axis_has_a_label() -> None:
    for figure in (draw_norms(TOWERS), draw_layers(TOWERS)):
        for axis in figure.axes:
            assert axis.get_xlabel()
    assert all(axis.get_ylabel() for axis in draw_layers(TOWERS).axes)


def test_maps_are_told_apart_without_colour() -> None:
    lines = draw_norms(TOWERS).axes[3].lines
    assert len({line.get_linestyle() for line in lines}) == 3
    assert len({line.get_marker() for line in lines}) == 3


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`found` to hold statistics"):
        save_figures([], tmp_path)


def test_without_matplotlib_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"pip install 'clearclip-label-studio\[paper\]'"):
        require_matplotlib()
