"""CLIP Surgery's similarities, from its formula and as the scores hold them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from clearclip_core import DenseFeatures, Scores, Vocabulary
from tests.core.segmentation.test_scores import PLAN, WORDS, features_of, unit
from tests.core.segmentation.test_sliding_windows import plan_of


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
    assert torch.equal(
        Scores.of(weighed, query, one).cosines, Scores.of(features, query, one).cosines
    )


def test_a_class_that_the_window_shows_weighs_more() -> None:
    """Two patches alike between two classes: the CLS feature decides."""
    dog, grass = torch.eye(2)
    plan = plan_of((32, 32), (32, 32))
    patches = F.normalize(dog + grass, dim=0).expand(1, 2, 2, 2)
    for cls, winner in ((dog, 0), (grass, 1)):
        features = DenseFeatures(patches, plan, cls[None], remove_redundancy=True)
        scores = Scores.of(features, torch.stack([dog, grass]), Vocabulary.of(["dog", "grass"]))
        assert np.unique(scores.label_map()).tolist() == [winner]
