"""The whole way against the plain reference: windows, synonyms, contrast, thresholds, dtypes."""

from __future__ import annotations

import copy

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import (
    SCENE_LABELS,
    Label,
    LoadedModel,
    Preprocessing,
    Scores,
    Segmenter,
    Vocabulary,
    render_scene,
)
from tests.core.reference import Reference

MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
SIZES = Preprocessing(MEAN, STD, short_side_px=64, long_side_px=200, window_px=64, stride_px=32)
WORDS = Vocabulary(
    (Label("a", ("a", "b", "c")), Label("d"), *(Label(f"w{i}", (f"w{i}", f"v{i}")) for i in "12")),
    contrast=("x", "y"),
)
MANY = Vocabulary.of([f"label {i}" for i in range(70)])


def unit(count: int, width: int = 24, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=-1)


def model_of(clip: open_clip.CLIP, dtype: torch.dtype) -> LoadedModel:
    return LoadedModel("tiny", copy.deepcopy(clip).to(dtype), lambda _: torch.empty(0), MEAN, STD)


@pytest.mark.parametrize(
    "image_hw",
    [
        (150, 223),  # overlapping windows, the last one pushed back
        (64, 64),  # one window, nothing resized
        (90, 400),  # limited by the long side, so padded: 45 px are no multiple of the patch
        (37, 41),  # made larger
        (301, 190),
    ],
)
@pytest.mark.parametrize("words", [WORDS, MANY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_label_map_is_the_references(
    clip_model: open_clip.CLIP,
    image_hw: tuple[int, int],
    words: Vocabulary,
    dtype: torch.dtype,
) -> None:
    model = model_of(clip_model, dtype)
    embeddings = unit(len(words.queries))
    image = render_scene(5, size_hw=image_hw).image
    reference = Reference(model.clip, SIZES)
    windows = reference.encode(image)
    features = Segmenter(model, preprocessing=SIZES).encode(image)
    scores = Scores.of(features, embeddings, words)
    for threshold in (0.0, 0.05, 0.3):
        expected = reference.label_map(
            windows, embeddings, words.query_labels, image_hw, [threshold] * len(words.labels)
        )
        labels = scores.label_map(threshold)
        assert (labels == expected).mean() >= 0.9999
        if threshold == 0.0 and dtype == torch.float64:
            assert np.array_equal(labels, expected)


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", "bf16"),
        pytest.param("cuda", "bf16", marks=NEEDS_CUDA),
        pytest.param("cuda", "fp16", marks=NEEDS_CUDA),
    ],
)
def test_half_precision_agrees_with_the_reference_on_drawn_scenes(
    device: str, precision: str
) -> None:
    exact = Segmenter.load("demo", device="cpu", precision="fp32")
    words = exact.vocabulary(SCENE_LABELS)
    embeddings = exact.embed(words.queries)
    reference = Reference(exact.model.clip, exact.preprocessing)
    halved = Segmenter.load("demo", device=device, precision=precision)
    agreed = []
    for seed in (11, 12):
        image = render_scene(seed).image
        expected = reference.label_map(
            reference.encode(image), embeddings, words.query_labels, image.shape[:2], [0.0] * 99
        )
        labels = Scores.of(halved.encode(image), embeddings, words).label_map()
        agreed.append((labels == expected).mean())
    assert np.mean(agreed) >= 0.99
