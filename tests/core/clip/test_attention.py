import itertools

import numpy as np
import pytest
import scipy.special
import torch

from clearclip_core.clip.attention import (
    Projections,
    attend,
    scaled_dot_product,
)
from clearclip_core.clip.methods import parse_terms


def explicit(left: torch.Tensor, right: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    weights = torch.exp(torch.einsum("bhid,bhjd->bhij", left, right) / left.shape[-1] ** 0.5)
    return torch.einsum("bhij,bhjd->bhid", weights / weights.sum(-1, keepdim=True), value)


@pytest.fixture
def projections() -> Projections:
    generator = torch.Generator().manual_seed(3)
    parts = torch.randn(3, 2, 4, 7, 8, generator=generator, dtype=torch.float64)
    return Projections(*parts, torch.tensor([3.0, 11.0], dtype=torch.float64))


def test_each_term_is_softmax_of_its_products(projections: Projections) -> None:
    query, key, value, *_ = projections
    assert query is not None
    assert key is not None
    pairs = {"qk": (query, key), "qq": (query, query), "kk": (key, key), "vv": (value, value)}
    for name, (left, right) in pairs.items():
        expected = explicit(left, right, value)
        torch.testing.assert_close(attend(projections, name), expected, rtol=1e-10, atol=1e-12)


def test_identity_is_the_value(projections: Projections) -> None:
    assert torch.equal(attend(projections, "identity"), projections.value)


def test_a_sum_adds_softmaxed_maps(projections: Projections) -> None:
    query, key, value, *_ = projections
    assert query is not None
    assert key is not None
    expected = explicit(query, query, value) + explicit(key, key, value)
    torch.testing.assert_close(attend(projections, "qq+kk"), expected, rtol=1e-10, atol=1e-12)


def test_the_ensemble_is_gems_step_by_step(projections: Projections) -> None:
    """One picture, head and side at a time, each with its own temperature."""
    query, key, value, lengths, *_ = projections
    assert query is not None
    assert key is not None
    assert lengths is not None
    out = attend(projections, "ensemble")
    for picture, head in itertools.product(range(2), range(4)):
        tau = float(lengths[picture]) / 8**0.5
        expected = np.zeros((7, 8))
        for side in (query, key, value):
            z = side[picture, head].numpy()
            z = z / np.linalg.norm(z, axis=1, keepdims=True)
            z = scipy.special.softmax(tau * z @ z.T, axis=1) @ z
            z = z / np.linalg.norm(z, axis=1, keepdims=True)
            expected += scipy.special.softmax(tau * z @ z.T, axis=1) @ value[picture, head].numpy()
        assert out[picture, head].numpy() == pytest.approx(expected / 3, rel=1e-10, abs=1e-12)


def test_a_missing_projection_is_named(projections: Projections) -> None:
    with pytest.raises(ValueError, match="'qk' needs the projections query and key"):
        attend(projections._replace(key=None), "qk")
    with pytest.raises(ValueError, match="needs the projections query and key and token_length"):
        attend(projections._replace(token_length=None), "ensemble")


@pytest.mark.parametrize("name", ["", "q", "qq+", "qq+qq", "QQ", "qq kk"])
def test_unknown_or_doubled_terms_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="qk, qq, kk, vv, identity, ensemble"):
        parse_terms(name)


@pytest.mark.parametrize("tokens", [5, 785])
@pytest.mark.parametrize("heads", [1, 5])
def test_attention_in_bf16_is_that_of_float32(heads: int, tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (2, tokens, 3 * heads * 16)
    fused = torch.randn(shape, generator=generator).bfloat16()
    parts = [part.unflatten(-1, (heads, 16)).transpose(1, 2) for part in fused.chunk(3, dim=-1)]
    weights = (parts[0].float() @ parts[1].float().transpose(2, 3) / 4).softmax(dim=-1)
    with torch.inference_mode():
        out = scaled_dot_product(*parts)
    assert (out.shape, out.dtype) == ((2, heads, tokens, 16), torch.bfloat16)
    torch.testing.assert_close(out.float(), weights @ parts[2].float(), rtol=0.02, atol=0.02)
