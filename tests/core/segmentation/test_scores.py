"""Label maps and probabilities against every query upsampled to full resolution."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import DenseFeatures, Label, Scores, Vocabulary
from clearclip_core.segmentation.scores import LogSumExp
from clearclip_core.segmentation.windows import WindowPlan
from tests.core.segmentation.test_tiles import COLUMNS, ROWS, cosines, everywhere
from tests.core.segmentation.test_windows import one_by_one, plan_of

WORDS = Vocabulary(
    (Label("sofa", ("sofa", "couch")), Label("sky"), Label("dog", ("dog", "puppy", "hound"))),
    contrast=("wall", "floor"),
)
PLAN = plan_of((57, 83), (70, 102))
OWNERS = (0, 0, 1, 2, 2, 2, -1, -1)


def unit(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def features_of(plan: WindowPlan = PLAN) -> DenseFeatures:
    return DenseFeatures(unit(plan.count, *plan.grid_hw, 12, seed=1), plan)


def scores_of(words: Vocabulary = WORDS) -> Scores:
    return Scores.of(features_of(), unit(len(words.queries), 12, seed=2), words)


@pytest.mark.parametrize("elements", [1, 8 * 83 * 7, 8 * 83 * 56])
def test_neither_bands_nor_a_gpu_matter(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    scores = scores_of()
    labels, confidence = scores.decide(0.4)
    module = "clearclip_core.segmentation"
    for name in ("tiles.BATCH_ELEMENTS", "scores.BATCH_ELEMENTS", "scores.GPU_BATCH_ELEMENTS"):
        monkeypatch.setattr(f"{module}.{name}", elements)
    for banded in (scores.decide(0.4), scores._decide_everywhere(scores.thresholds(0.4))):
        assert (banded[0] == labels).mean() > 0.999
        assert banded[1] == pytest.approx(confidence, abs=1e-3)


def test_a_glance_shows_shapes_and_no_numbers() -> None:
    plan = WindowPlan((40, 80), (32, 64), 32, 32, (16, 16))
    features = DenseFeatures(torch.ones(2, 2, 2, 5), plan)
    scores = Scores.of(features, torch.ones(3, 5), Vocabulary.of(["dog", "sky"], ["wall"]))
    assert repr(features) == (
        "<DenseFeatures of 80 × 40 px: 2 windows of 2 × 2 patches, 5 numbers each, float32 on cpu>"
    )
    assert repr(scores) == "<Scores of 80 × 40 px: 4 × 2 patches, 3 queries, labels dog, sky>"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="`cosines` to hold 8 queries, but got 7"):
        Scores.of(features_of(), unit(7, 12, seed=2), WORDS)
    for threshold in ([0.1, 0.2], {"horse": 0.3}, [0.1, float("nan"), 0.2], -0.1, 1.5):
        with pytest.raises(ValueError, match="`threshold` to be one number or 3, one for each"):
            scores_of().label_map(threshold)  # type: ignore[arg-type]


def test_label_maps_with_a_bias_are_those_of_every_query_at_every_pixel() -> None:
    """As an adaptation makes them: queries of any length, and a bias for each."""
    queries = 2 * unit(len(OWNERS), 12, seed=2)
    bias = torch.linspace(-0.3, 0.3, len(OWNERS))
    scores = Scores.of(features_of(), queries, WORDS, bias)
    products = torch.einsum("nhwd,qd->nqhw", features_of().patches.double(), queries.double())
    everywhere = one_by_one(PLAN, products) + bias.double()[:, None, None]  # (Q, H, W)
    best, second = everywhere.topk(2, dim=0).values
    sure = (best - second > 1e-5).numpy()
    expected = np.array(OWNERS)[everywhere.argmax(dim=0).numpy()]
    assert sure.mean() > 0.99
    assert np.array_equal(scores.label_map()[sure], expected[sure])
    assert np.array_equal(scores.decide()[0][sure], expected[sure])


def test_redundancy_is_removed_window_by_window() -> None:
    """Against CLIP Surgery's products of features, in numpy, one patch at a time."""
    cls = unit(PLAN.count, 12, seed=4)
    features = DenseFeatures(features_of().patches, PLAN, cls, remove_redundancy=True)
    queries = unit(8, 12, seed=2)
    made = Scores.of(features, queries, WORDS).cosines
    expected = np.empty((PLAN.count, 8, 4, 4))
    for window in range(PLAN.count):
        share = np.exp(2 * (queries @ cls[window]).double().numpy())
        weights = share / share.sum() * 8
        for y, x in np.ndindex(4, 4):
            patch = features.patches[window, y, x].double().numpy()
            products = weights[:, None] * queries.double().numpy() * patch
            expected[window, :, y, x] = (products - products.mean(axis=0)).sum(axis=1)
    mosaic = PLAN.mosaic(torch.from_numpy(expected))
    torch.testing.assert_close(made.double(), mosaic, rtol=1e-4, atol=1e-6)
    assert len({tuple(np.round(cls[i].numpy(), 3)) for i in range(PLAN.count)}) == PLAN.count


def test_a_single_class_keeps_its_cosine() -> None:
    features = features_of()
    cls = unit(PLAN.count, 12, seed=4)
    weighed = DenseFeatures(features.patches, PLAN, cls, remove_redundancy=True)
    one, query = Vocabulary.of(["dog"]), unit(1, 12, seed=2)
    first, second = (Scores.of(each, query, one).cosines for each in (weighed, features))
    assert torch.equal(first, second)


@pytest.mark.parametrize("queries", [1, 5, 150])
@pytest.mark.parametrize("spread", [0.05, 1.5, 4.0, 15.0])
def test_denominators_are_good_to_a_step_of_float16(queries: int, spread: float) -> None:
    logits = cosines(queries, spread, np.float32)
    full = everywhere(logits.astype(np.float64))
    expected = np.log(np.exp(full).sum(axis=2))
    log_sum_exp = LogSumExp(logits.swapaxes(1, 2), ROWS.upsampling, COLUMNS.upsampling)
    made = np.concatenate([log_sum_exp.at_rows(slice(*at)) for at in ((0, 100), (100, 211))])
    assert made.shape == expected.shape
    assert np.abs(np.expm1(made - expected)).max() < 2**-11


def test_denominators_neither_overflow_nor_vanish() -> None:
    """Logits of a temperature of 400: exp(400) is more than float32 holds."""
    logits = cosines(6, 1.0, np.float32)
    logits *= 400 / np.abs(logits).max()
    expected = everywhere(logits.astype(np.float64))
    expected = np.log(np.exp(expected).sum(axis=2))
    log_sum_exp = LogSumExp(logits.swapaxes(1, 2), ROWS.upsampling, COLUMNS.upsampling)
    assert log_sum_exp.at_rows(slice(None)) == pytest.approx(expected, abs=1e-3)
