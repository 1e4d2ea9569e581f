"""The joint bilateral filter of scores, beside its formula in NumPy's float64."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch.utils._python_dispatch import TorchDispatchMode

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
            weights = softmax(joined @ joined[row, column] / 0.1 - squared / 50)
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


class Watch(TorchDispatchMode):
    """Counts the operators that compute something, and the bytes of all tensors that they make."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.peak_bytes = self._bytes = 0
        self._storages: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        operator: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        made = operator(*args, **(kwargs or {}))
        is_view = any(
            each.alias_info and not each.alias_info.is_write for each in _returns(operator)
        )
        if isinstance(made, torch.Tensor) and not is_view:
            self.operators += 1
            self._watch(made.untyped_storage())
        return made

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._storages:
            self._storages[key] = storage.nbytes()
            self._bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self._bytes)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._bytes -= self._storages.pop(key)


def _returns(operator: torch._ops.OpOverload) -> Sequence[torch._C.Argument]:
    returns: Sequence[torch._C.Argument] = operator._schema.returns
    return returns


def added(size_hw: tuple[int, int], labels: int) -> tuple[int, int]:
    """Return the operators and bytes that filtering adds to scoring an image of this size."""
    height, width = size_hw
    plan = WindowPlan(size_hw, (448, round(448 * width / height)), 448, 224, (16, 16))
    made = torch.randn(plan.count, *plan.grid_hw, 64, generator=torch.manual_seed(0))
    features = DenseFeatures(F.normalize(made, dim=-1), plan)
    words = Vocabulary.of([f"{index}" for index in range(labels)])
    embeddings = F.normalize(torch.randn(labels, 64, generator=torch.manual_seed(1)), dim=-1)
    watches = Watch(), Watch()
    for watch, is_filtered in zip(watches, (False, True), strict=True):
        with watch:
            Scores.of(features, embeddings, words, bilateral=is_filtered)
    plain, filtered = watches
    return filtered.operators - plain.operators, filtered.peak_bytes - plain.peak_bytes


def test_a_photograph_takes_few_operators_more() -> None:
    """Each of them is a launch on a GPU."""
    operators, _ = added((1080, 1920), 18)
    assert 0 < operators <= 40


def test_thousands_of_labels_take_little_memory_more() -> None:
    """Of the widest picture: 9 windows, whose scores alone take 85 MB."""
    _, size = added((448, 2048), 3000)
    assert 0 < size <= 200e6
