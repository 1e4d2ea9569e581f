"""The propagation against the formula with a dense matrix, cell by cell and query by query."""

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import SCENE_LABELS, Scores, Segmenter, Vocabulary, render_scene
from clearclip_core.segmentation import propagation
from clearclip_core.segmentation.propagation import Propagation, propagate
from clearclip_core.segmentation.refined_argmax import decide_refined
from tests.core.segmentation.test_scores import WORDS, features_of, scores_of, unit
from tests.core.segmentation.test_windows import plan_of

Floats = npt.NDArray[np.float64]

STD = (68.5, 66.6, 70.3)


def picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Left dark, right bright, with noise."""
    rng = np.random.default_rng(5)
    colours = rng.integers(0, 60, (height, width, 3))
    colours[:, width // 2 :] += 150
    return colours.astype(np.uint8)


def conjugate_gradient(matrix: Floats, right: Floats, start: Floats, steps: int) -> Floats:
    """The textbook's method (Hestenes and Stiefel, 1952)."""
    x = start.copy()
    r = right - matrix @ x
    p = r.copy()
    for _ in range(steps):
        alpha = (r @ r) / (p @ matrix @ p)
        x = x + alpha * p
        new = r - alpha * matrix @ p
        p = new + (new @ new) / (r @ r) * p
        r = new
    return x


def plain(logits: Floats, gray: Floats, words: Floats, steps: int) -> Floats:
    """PEARL's formula: logits (Q, h, w), gray (h, w), unit words (Q, D)."""
    count, height, width = logits.shape
    similar = np.exp(words @ words.T / 0.5)
    similar = similar / similar.sum(axis=1, keepdims=True) + 10 * np.eye(count)
    own = np.diag(similar / similar.sum(axis=1, keepdims=True))
    cells = [(y, x) for y in range(height) for x in range(width)]
    shares = {}
    for y, x in cells:
        exponents = [math.exp(value) for value in logits[:, y, x]]
        shares[y, x] = [each / sum(exponents) for each in exponents]
    matrix = np.zeros((len(cells), len(cells)))
    confidence = np.zeros(len(cells))
    for index, at in enumerate(cells):
        agreement = sum(s * p * p for s, p in zip(own, shares[at], strict=True))
        confidence[index] = max(max(shares[at]), 0.05) ** 2 * (1 + min(max(agreement, 0), 1))
    for down, along in ((1, 0), (0, 1)):
        pairs = [
            (a, (a[0] + down, a[1] + along)) for a in cells if (a[0] + down, a[1] + along) in cells
        ]
        mean = sum(abs(gray[a] - gray[b]) for a, b in pairs) / len(pairs)
        for a, b in pairs:
            edge = math.exp(-5 * abs(gray[a] - gray[b]) / (mean + 1e-6))
            agreement = sum(s * p * q for s, p, q in zip(own, shares[a], shares[b], strict=True))
            weight = min(1.0, edge * (1 + agreement))
            i, j = cells.index(a), cells.index(b)
            matrix[[i, j], [i, j]] += weight
            matrix[[i, j], [j, i]] -= weight
    matrix += np.diag(confidence)
    flat = logits.reshape(count, -1)
    solved = [conjugate_gradient(matrix, confidence * each, each, steps) for each in flat]
    return np.stack(solved).reshape(logits.shape)


@pytest.mark.parametrize(("steps", "cells"), [(1, 6), (3, 6), (25, 15)])
def test_it_is_the_formula_of_pooled_cosines_interpolated(
    monkeypatch: pytest.MonkeyPatch, steps: int, cells: int
) -> None:
    """As many cells a side, of several windows; of eight queries three are computed at once."""
    monkeypatch.setattr(propagation, "_QUERIES_AT_ONCE", 3)
    plan = plan_of((60, 90), (60, 90))
    words = unit(8, 12, seed=2)
    cosines = Scores.of(features_of(plan), words, WORDS).cosines.double()
    rows, columns = (torch.from_numpy(axis.matrix) for axis in (plan.rows, plan.columns))
    image = picture(60, 90)
    gray = sum(
        share * torch.from_numpy(image[..., channel]).double() / STD[channel]
        for channel, share in enumerate((0.299, 0.587, 0.114))
    )
    assert isinstance(gray, torch.Tensor)
    kernel = (60 // cells, 90 // cells)
    pooled = F.avg_pool2d((rows @ cosines @ columns.T)[None], kernel)[0].numpy()
    means = F.avg_pool2d(gray[None, None], kernel)[0, 0].numpy()
    expected = torch.from_numpy(plain(pooled, means, words.double().numpy(), steps))
    how = Propagation(cells=cells, steps=steps)
    made = propagate(Scores(cosines, plan, WORDS), image, words, STD, how)
    assert torch.allclose(made.cosines, expected, rtol=1e-5, atol=1e-6)
    full = F.interpolate(expected[None], (60, 90), mode="bilinear", align_corners=False)[0]
    bands = made.logits_at(np.arange(60.0), np.arange(90.0))
    logits = np.concatenate([logits for _, logits in bands])
    assert logits == pytest.approx(50 * full.permute(1, 2, 0).numpy(), abs=1e-4)


def test_many_labels_take_little_more_memory_than_their_scores() -> None:
    """The logits and their solution, and arrays of a few queries at once."""
    words = unit(300, 12, seed=2)
    labels = Vocabulary.of([f"label {number}" for number in range(300)])
    scores = Scores.of(features_of(plan_of((160, 160), (160, 160))), words, labels)
    tracemalloc.start()
    try:
        made = propagate(scores, picture(160, 160), words, STD, Propagation(steps=2))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made.cosines.shape == (300, 80, 80)
    assert peak_bytes < 3.5 * made.cosines.nbytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 40), (40, 1), (16, 16)], ids=str)
def test_one_patch_one_line_and_half_precision_are_propagated_too(
    size_hw: tuple[int, int], dtype: torch.dtype
) -> None:
    plan = plan_of(size_hw, size_hw)
    words = unit(8, 12, seed=2)
    features = features_of(plan)
    half = replace(features, patches=features.patches.to(dtype))
    made = propagate(Scores.of(half, words, WORDS), picture(*size_hw), words, STD)
    expected = propagate(Scores.of(features, words, WORDS), picture(*size_hw), words, STD)
    assert torch.allclose(made.cosines.float(), expected.cosines, atol=0.01)
    assert made.label_map().shape == size_hw


def test_what_does_not_fit_is_refused() -> None:
    scores = scores_of()
    with pytest.raises(ValueError, match=r"`image` to be of size \(57, 83\), but got \(4, 5\)"):
        propagate(scores, picture(4, 5), unit(8, 12, seed=2))
    for name in ("cells", "steps", "sharpness"):
        with pytest.raises(ValueError, match=f"`{name}` to be positive, but got 0"):
            Propagation(**{name: 0})


def test_a_segmenter_propagates_only_where_asked_for_and_refines_by_the_models_patches() -> None:
    segmenter = Segmenter.load("demo", precision="fp32", device="cpu")
    image = render_scene(seed=10_000_001, size_hw=(224, 300)).image
    scores = segmenter.score(segmenter.encode(image), SCENE_LABELS, contrast=True)
    words = segmenter.embed(scores.vocabulary.queries)
    expected = propagate(scores, image, words, segmenter.preprocessing.std)
    for result in (
        segmenter.decide(scores, 0.3, image, propagate=True),
        segmenter.segment(image, SCENE_LABELS, contrast=True, threshold=0.3, propagate=True),
    ):
        assert np.array_equal(result.label_map, expected.label_map(0.3))
    refined = segmenter.decide(scores, 0.3, image, refine=True, propagate=True)
    by_patches = decide_refined(expected, image, 0.3, patch_px=scores.plan.patch_image_px)
    assert np.array_equal(refined.label_map, by_patches[0])
    assert not np.array_equal(refined.label_map, decide_refined(expected, image, 0.3)[0])
    with pytest.raises(ValueError, match="`image` to be an image with `propagate`"):
        segmenter.decide(scores, propagate=True)
