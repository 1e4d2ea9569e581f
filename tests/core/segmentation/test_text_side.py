"""RF-CLIP's text side against its formulas written out, one window and one word at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import DenseFeatures, Vocabulary
from clearclip_core.segmentation.scores import TextSide, group_words, score_with_text_side
from tests.core.segmentation.test_windows import plan_of, unmosaic

PLAN = plan_of((64, 96), (64, 64))
WIDTH = 6


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    made = torch.randn(*shape, WIDTH, generator=torch.manual_seed(seed), dtype=torch.float64)
    return F.normalize(made, dim=-1)


def words(seed: int = 1) -> torch.Tensor:
    """Nine words, some of them near others."""
    some = unit(4, seed=seed)
    near = F.normalize(some[[0, 0, 1, 2, 2]] + 0.35 * unit(5, seed=seed + 1), dim=-1)
    return torch.cat([some, near])


def groups_plainly(embeddings: np.ndarray, limit: float) -> list[set[int]]:
    """Join the two groups whose farthest words are nearest, until these are too far apart."""
    groups = [{index} for index in range(len(embeddings))]
    while len(groups) > 1:
        pairs = [
            (max(1 - embeddings[i] @ embeddings[j] for i in a for j in b), m, n)
            for m, a in enumerate(groups)
            for n, b in enumerate(groups[:m])
        ]
        distance, m, n = min(pairs)
        if distance > limit:
            break
        groups[n] |= groups.pop(m)
    return groups


def scores_plainly(
    features: DenseFeatures, picture: np.ndarray | None, embeddings: np.ndarray, side: TextSide
) -> list[np.ndarray]:
    """(h, w, Q) scores of each window."""
    assert features.cls is not None
    made = []
    for patches, cls in zip(features.patches.numpy(), features.cls.numpy(), strict=True):
        drawn = embeddings.copy()
        for group in groups_plainly(embeddings, side.distance):
            best = max(group, key=lambda index: embeddings[index] @ cls)
            flat = sorted(patches.reshape(-1, WIDTH), key=lambda patch: patch @ embeddings[best])
            mean = (flat[-1] + flat[-2]) / 2
            mixed = (1 - side.mixed) * embeddings[best] + side.mixed * mean / np.linalg.norm(mean)
            drawn[best] = mixed / np.linalg.norm(mixed)
        whole = cls if picture is None else picture
        w = side.presence
        made.append((1 - w) * patches @ drawn.T + w * embeddings @ whole)
    return made


@pytest.mark.parametrize("limit", [0.0, 0.05, 0.15, 0.4, 2.0])
def test_words_are_grouped_by_complete_linkage(limit: float) -> None:
    embeddings = words()
    numbers = group_words(embeddings, limit)
    made = {frozenset(np.flatnonzero(numbers == number).tolist()) for number in numbers}
    assert made == {frozenset(group) for group in groups_plainly(embeddings.numpy(), limit)}
    assert group_words(embeddings[:1], limit).tolist() == [0]


@pytest.mark.parametrize("by_window", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_scores_are_those_of_the_formulas(
    by_window: bool, dtype: torch.dtype, tolerance: float
) -> None:
    side = TextSide(0.25, 0.3, 0.15, by_window)
    features = DenseFeatures(
        unit(PLAN.count, *PLAN.grid_hw, seed=5), PLAN, unit(PLAN.count, seed=6)
    )
    embeddings, picture = words(), unit(seed=7)
    assert len({*group_words(embeddings, side.distance).tolist()}) < len(embeddings)
    expected = scores_plainly(
        features, None if by_window else picture.numpy(), embeddings.numpy(), side
    )
    assert features.cls is not None
    ours = DenseFeatures(features.patches.to(dtype), PLAN, features.cls.to(dtype))
    vocabulary = Vocabulary.of([f"word {index}" for index in range(len(embeddings))])
    scores = score_with_text_side(
        ours,
        None if by_window else picture.to(dtype),
        embeddings.to(dtype),
        vocabulary,
        group_words(embeddings, side.distance),
        side,
    )
    windows = unmosaic(PLAN, scores.cosines).permute(0, 2, 3, 1)
    assert scores.cosines.dtype == dtype
    np.testing.assert_allclose(windows.numpy(), np.stack(expected), rtol=0, atol=tolerance)


def test_features_without_cls_features_are_refused() -> None:
    features = DenseFeatures(unit(PLAN.count, *PLAN.grid_hw), PLAN)
    with pytest.raises(ValueError, match="with CLS features, but got None"):
        score_with_text_side(
            features, None, words()[:1], Vocabulary.of(["a"]), np.zeros(1, int), TextSide(0, 0, 0)
        )
