"""Candidates predict as the library does, and encode a picture once for a segmenter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clearclip_core import (
    HELD_OUT_SEEDS,
    Adaptation,
    Label,
    RGBArray,
    ScoreOptions,
    Segmenter,
    render_scene,
)
from clearclip_core.evaluation.comparison import (
    AS_PAPER,
    Candidate,
    PredictionRule,
    predict_all,
)

LABELS = tuple(Label(name) for name in ("sky", "grass", "tree", "house"))


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.load("demo", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def image() -> RGBArray:
    return render_scene(HELD_OUT_SEEDS[3], (96, 128)).image


def test_the_paper_gives_each_pixel_its_best_label(segmenter: Segmenter, image: RGBArray) -> None:
    (made,) = predict_all([Candidate(segmenter, LABELS, "demo", "", AS_PAPER)], image)
    expected = segmenter.segment(image, LABELS).label_map
    assert (made.label_map(expected.shape) == expected).all()  # type: ignore[arg-type]
    assert (expected >= 0).all()
    assert made.seconds > 0


def test_the_backend_lets_other_words_win(segmenter: Segmenter, image: RGBArray) -> None:
    rule = PredictionRule(threshold=0.3, min_island_share=0.01)
    (made,) = predict_all([Candidate(segmenter, LABELS, "demo", "", rule)], image)
    segmentation = segmenter.segment(image, LABELS, contrast=True, threshold=0.3, refine=True)
    min_px = round(0.01 * 96 * 128)
    expected = segmentation.masks(min_px, min_px)
    assert {LABELS[index].name for index in made.masks} == set(expected)
    for index, mask in made.masks.items():
        assert np.array_equal(mask, expected[LABELS[index].name])


def test_each_label_may_have_a_threshold_and_1_is_never_reached(
    segmenter: Segmenter, image: RGBArray
) -> None:
    thresholds = (1.0, 0.6, 0.5, 0.7)
    rule = PredictionRule(threshold=thresholds, min_island_share=0)
    (made,) = predict_all([Candidate(segmenter, LABELS, "demo", "", rule)], image)
    segmentation = segmenter.segment(image, LABELS, contrast=True, refine=True)
    sure = segmentation.confidence.astype(float)
    won = [segmentation.label_map == index for index in range(4)]
    assert won[0].any()
    expected = {index: won[index] & (sure >= thresholds[index]) for index in (1, 2, 3)}
    there = {index: mask for index, mask in expected.items() if mask.any()}
    assert there.keys() == made.masks.keys()
    assert all(np.array_equal(mask, made.masks[index]) for index, mask in there.items())
    assert any((won[index] & ~mask).any() for index, mask in there.items())


def test_what_was_learned_changes_the_scores(segmenter: Segmenter, image: RGBArray) -> None:
    width = segmenter.embed(["sky"]).shape[1]
    grass = Adaptation(("grass",), np.zeros((1, width), np.float32), np.full(1, 9, np.float32), 1)
    candidate = Candidate(segmenter, LABELS, "demo", "", AS_PAPER, grass)
    (made,) = predict_all([candidate], image)
    assert list(made.masks) == [1]  # its scores are far above all others everywhere


def test_what_counts_beside_the_words_changes_the_masks(
    segmenter: Segmenter, image: RGBArray
) -> None:
    options = ScoreOptions(presence=0.4, join_synonyms=True)
    labels = (Label("sky", ("sky", "road")), *LABELS[1:])
    plain = Candidate(segmenter, labels, "demo", "", AS_PAPER)
    usual, made = predict_all([plain, replace(plain, options=options)], image)
    expected = segmenter.segment(image, labels, options=options).label_map
    assert (made.label_map(expected.shape) == expected).all()  # type: ignore[arg-type]
    assert (usual.label_map(expected.shape) != expected).any()  # type: ignore[arg-type]
