"""Plots of a fit and of an adaptation, by the bars that matplotlib holds."""

import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clearclip_core import Adaptation, Fit

FIT = Fit(None, text_ious={"sky": 0.5, "sea": 0.2}, adapted_ious={"sky": 0.75, "sea": 0.4})
LEARNED = Adaptation(("sea",), np.array([[3, 4]], np.float32), np.zeros(1, np.float32), 3)


def test_a_fit_shows_each_label_before_and_after() -> None:
    (axes,) = FIT.plot().axes
    assert [each.get_text() for each in axes.get_yticklabels()] == ["sky", "sea"]
    bars = {each.get_label(): [bar.get_width() for bar in each] for each in axes.containers}
    assert bars == {"words": [0.5, 0.2], "learned": [0.75, 0.4]}


def test_an_adaptation_shows_how_far_labels_moved() -> None:
    (axes,) = LEARNED.plot().axes
    assert [bar.get_width() for bar in axes.patches] == [5.0]


@pytest.mark.parametrize("shown", [FIT, LEARNED], ids=["fit", "adaptation"])
def test_notebooks_show_the_plot(shown: Fit | Adaptation) -> None:
    png = shown._repr_png_()
    assert png is not None
    assert Image.open(BytesIO(png)).format == "PNG"


@pytest.mark.parametrize("shown", [FIT, LEARNED], ids=["fit", "adaptation"])
def test_without_matplotlib_notebooks_show_text(
    shown: Fit | Adaptation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert shown._repr_png_() is None
    with pytest.raises(ModuleNotFoundError, match="paper"):
        shown.plot()
