"""The two figures against a softmax of every pixel, class by class."""

import math
import pickle
from io import BytesIO
from itertools import groupby

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from clearclip_core import Label, Scores, Segmentation, Uncertainty, Vocabulary
from clearclip_core.segmentation.segmentation import decide
from clearclip_core.segmentation.windows import WindowPlan
from tests.core.conftest import picture
from tests.core.segmentation.test_scores import WORDS
from tests.core.segmentation.test_windows import plan_of

#: Patches of one pixel: the figures look at every pixel.
PLAN = WindowPlan((9, 14), (9, 14), window_px=6, stride_px=3, patch_hw=(1, 1))
VOCABULARIES = [
    WORDS,
    Vocabulary(WORDS.labels),
    Vocabulary((Label("cat"),), contrast=("wall",)),
    Vocabulary((Label("cat"),)),
    Vocabulary((Label("bg", background=True), Label("sky")), contrast=("wall", "floor")),
    Vocabulary.of([f"thing {i}" for i in range(150)]),
]


def scores_of(words: Vocabulary, plan: WindowPlan = PLAN, seed: int = 1) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = plan.rows, plan.columns
    size = len(rows.starts_px) * rows.patches, len(columns.starts_px) * columns.patches
    cosines = torch.randn(len(words.queries), *size, generator=generator) * 0.04
    return Scores(cosines, plan, words)


def by_hand(scores: Scores, thresholds: list[float]) -> tuple[float, float]:
    matrices = scores.plan.rows.matrix, scores.plan.columns.matrix
    logits = np.einsum("yi,qij,xj->yxq", matrices[0], scores.cosines.double(), matrices[1])
    owners = list(scores.vocabulary.query_labels)
    margins, faults = [], []
    for pixel in logits.reshape(-1, len(owners)) * scores.temperature:
        each = [math.exp(value) for value in pixel]
        groups = groupby(sorted(zip(owners, each, strict=True)), key=lambda pair: pair[0])
        best = {owner: max(value for _, value in group) for owner, group in groups}
        share = {owner: value / sum(best.values()) for owner, value in best.items()}
        ordered = sorted(share, key=lambda owner: -share[owner])
        margins.append(share[ordered[0]] - (share[ordered[1]] if len(ordered) > 1 else 0))
        said = ordered[0]
        if said >= 0 and best[said] / sum(each) < thresholds[said]:
            said = -1
        faults.append(1 - share.get(said, 0))
    return 1 - sum(margins) / len(margins), sum(faults) / len(faults)


@settings(max_examples=25)
@given(
    st.integers(0, 2**31),
    st.sampled_from(VOCABULARIES),
    st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3),
)
def test_they_are_those_of_every_pixel(seed: int, words: Vocabulary, limits: list[float]) -> None:
    plan = WindowPlan((5, 4), (5, 4), window_px=4, stride_px=2, patch_hw=(1, 1))
    scores, thresholds = scores_of(words, plan, seed), (50 * limits)[: len(words.labels)]
    confidence = scores.decide()[1].astype(np.float64)
    for limit in thresholds:  # a pixel just as likely, up to rounding, may fall on either side
        assume(not np.isclose(confidence, limit, atol=1e-3).any())
    uncertainty = Uncertainty.of(scores, thresholds)
    expected = by_hand(scores, thresholds)
    assert (uncertainty.uncertainty, uncertainty.effort) == pytest.approx(expected, abs=1e-6)


def test_one_place_a_patch_stands_for_all_pixels() -> None:
    """Blots much larger than a patch: between places little changes."""
    plan = plan_of((96, 144), (128, 192))
    scores = scores_of(WORDS, plan)
    along = torch.arange(scores.cosines.shape[2]).div(9).sin() * 0.05
    smooth = along * torch.arange(8)[:, None, None].sub(3).sign() + torch.zeros_like(scores.cosines)
    wide = Scores(smooth + torch.arange(8)[:, None, None] * 0.003, plan, WORDS)
    uncertainty = Uncertainty.of(wide)
    expected = by_hand(wide, [0.0] * 3)
    assert (uncertainty.uncertainty, uncertainty.effort) == pytest.approx(expected, abs=0.02)
    assert 0.05 < uncertainty.effort < uncertainty.uncertainty < 0.95


def test_what_is_certain_costs_nothing_and_what_is_even_costs_most() -> None:
    sure = torch.tensor([0.9, -0.9]).reshape(2, 1, 1).expand(2, *scores_of(WORDS).cosines.shape[1:])
    two = Vocabulary.of(["cat", "dog"])
    assert Uncertainty.of(Scores(sure, PLAN, two)) == Uncertainty(0.0, 0.0)
    even = Uncertainty.of(Scores(torch.zeros_like(sure), PLAN, two))
    assert even == Uncertainty(1.0, 0.5)


def test_a_figure_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`effort` to be in \[0, 1\], but got 1.5"):
        Uncertainty(0.5, 1.5)
    with pytest.raises(ValueError, match="`threshold` to be one number or 3"):
        Uncertainty.of(scores_of(WORDS), [0.1])


def two_labels() -> Segmentation:
    label_map = np.full((40, 60), -1, np.int16)
    label_map[:, :20], label_map[:, 40:] = 0, 1
    return Segmentation(label_map, np.ones((40, 60), np.float16), ("sky", "sea"))


def test_an_overlay_leaves_pixels_without_a_label_as_they_are() -> None:
    image = picture(40, 60)
    drawn = np.asarray(two_labels().overlay(image))
    assert np.array_equal(drawn[:, 25:35], image[:, 25:35])
    assert not np.array_equal(drawn[:, :20], image[:, :20])


def test_an_overlay_on_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of \(40, 60\) px \(height, width\), but got \(60, 40\)"):
        two_labels().overlay(picture(60, 40))


def test_a_notebook_shows_each_label_in_its_colour() -> None:
    with Image.open(BytesIO(two_labels()._repr_png_())) as shown:
        pixels = np.asarray(shown.convert("RGB"))
    assert pixels.shape[0] == 40
    assert len({tuple(pixels[20, x]) for x in (10, 30, 50)}) == 3
    assert tuple(pixels[20, 30]) == (255, 255, 255)


def test_show_opens_the_overlay(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Image.Image] = []
    monkeypatch.setattr(Image.Image, "show", lambda image: opened.append(image))
    two_labels().show(picture(40, 60))
    assert [each.height for each in opened] == [40]


@pytest.mark.parametrize("first", ["label_map", "confidence"])
def test_a_lazy_segmentation_is_the_one_decided_at_once(first: str) -> None:
    scores = scores_of(WORDS)
    found = decide(scores)
    getattr(found, first)
    label_map, confidence = scores.decide()
    assert np.array_equal(found.label_map, label_map)
    assert np.array_equal(found.confidence, confidence)


def test_a_label_map_and_masks_need_no_confidence(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = scores_of(WORDS)
    expected, _ = scores.decide()
    monkeypatch.setattr(Scores, "decide", None)
    masks = decide(scores).masks()
    assert masks
    for name, mask in masks.items():
        assert np.array_equal(mask, expected == WORDS.names.index(name))


def test_masks_with_a_mean_compute_the_label_map_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = scores_of(WORDS)
    label_map, confidence = scores.decide()
    monkeypatch.setattr(Scores, "label_map", None)
    masks = decide(scores).label_masks()
    label = masks.labels[0]
    expected = confidence[label_map == label].mean(dtype=np.float64)
    assert masks.mean_confidence(label) == pytest.approx(expected)


def test_a_threshold_out_of_range_is_refused_when_labels_are_decided() -> None:
    with pytest.raises(ValueError, match="threshold"):
        decide(scores_of(WORDS), -0.5)


def test_a_pickled_lazy_segmentation_holds_arrays_alone() -> None:
    result = decide(scores_of(WORDS))
    again = pickle.loads(pickle.dumps(result))
    assert type(again) is Segmentation
    assert again.labels == WORDS.names
    assert np.array_equal(again.label_map, result.label_map)
    assert np.array_equal(again.confidence, result.confidence)
