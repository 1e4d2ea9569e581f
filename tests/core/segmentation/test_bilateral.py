"""The joint bilateral filter of scores, beside its formula in NumPy's float64."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from scipy.special import softmax

from clearclip_core import DenseFeatures, Scores, Vocabulary
from clearclip_core.segmentation import bilateral
from clearclip_core.segmentation.bilateral import bilateral_filter
from clearclip_core.segmentation.windows import WindowPlan
from clearclip_core.vocabulary import TEMPERATURE

Doubles = npt.NDArray[np.float64]


def features_of(
    size_hw: tuple[int, int], dtype: torch.dtype = torch.float32, second: int = 0
) -> DenseFeatures:
    """Make random features of windows of 4 x 4 patches at most, with a large part in common."""
    plan = WindowPlan(size_hw, size_hw, 64, 32, (16, 16))
    made = [
        F.normalize(
            3 + torch.randn(plan.count, *plan.grid_hw, width, generator=torch.manual_seed(width)),
            dim=-1,
        ).to(dtype)
        for width in (8, second)
        if width
    ]
    return DenseFeatures(made[0], plan, second=made[1] if second else None)


def expected(similarities: Doubles, features: DenseFeatures) -> Doubles:
    """Filter each patch by itself, as the formula says."""
    made = np.empty_like(similarities)
    _, height, width, _ = similarities.shape
    for window, logits in enumerate(TEMPERATURE * similarities):
        guide = []
        for encoder in (features.patches, features.second):
            if encoder is not None:
                x = encoder[window].double().numpy()
                x = x - x.mean(axis=(0, 1))
                guide.append(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6))
        joined = np.concatenate(guide, axis=-1)
        joined /= np.maximum(np.linalg.norm(joined, axis=-1, keepdims=True), 1e-6)
        y, x = np.mgrid[:height, :width]
        for row, column in np.ndindex(height, width):
            squared = (y - row) ** 2 + (x - column) ** 2
            weights = softmax(joined @ joined[row, column] / 0.2 - squared / 18)
            mean = (weights[..., None] * softmax(logits, axis=-1)).sum(axis=(0, 1))
            made[window, row, column] = np.log(mean + 1e-4) / TEMPERATURE
    return made


@pytest.mark.parametrize("size_hw", [(64, 64), (96, 140), (16, 200), (9, 9)])
@pytest.mark.parametrize("second", [0, 5])
def test_it_is_its_formula(size_hw: tuple[int, int], second: int) -> None:
    """Of several windows, one row of patches, and one patch."""
    features = features_of(size_hw, torch.float64, second)
    shape = (*features.patches.shape[:3], 3)
    similarities = torch.randn(shape, generator=torch.manual_seed(1), dtype=torch.float64) / 20
    found = bilateral_filter(similarities, features)
    np.testing.assert_allclose(found, expected(similarities.numpy(), features), atol=1e-9)


@pytest.mark.parametrize("elements", [1, 40, 300])
def test_little_memory_changes_nothing(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features = features_of((96, 140))
    similarities = torch.randn(*features.patches.shape[:3], 3, generator=torch.manual_seed(1))
    whole = bilateral_filter(similarities, features)
    monkeypatch.setattr(bilateral, "_ELEMENTS", elements)
    torch.testing.assert_close(bilateral_filter(similarities, features), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_score_in_float32(dtype: torch.dtype) -> None:
    features = features_of((96, 140), dtype)
    words = Vocabulary.of(["sky", "dog"])
    embeddings = F.normalize(torch.randn(2, 8, generator=torch.manual_seed(2)), dim=-1)
    found = Scores.of(features, embeddings, words, bilateral=True).cosines
    precise = DenseFeatures(features.patches.float(), features.plan)
    wanted = Scores.of(precise, embeddings, words, bilateral=True).cosines
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_patches_that_are_all_alike_keep_their_labels() -> None:
    """As those of a picture of one colour."""
    plan = WindowPlan((64, 64), (64, 64), 64, 32, (16, 16))
    features = DenseFeatures(F.normalize(torch.ones(1, 4, 4, 8), dim=-1), plan)
    similarities = torch.tensor([0.3, 0.1, 0.2]).expand(1, 4, 4, 3)
    found = bilateral_filter(similarities, features)
    assert (found.argmax(dim=-1) == 0).all()
    assert found.isfinite().all()
