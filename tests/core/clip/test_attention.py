"""Attention beyond what the reference compares: names, bf16, and PEARL's alignment."""

from __future__ import annotations

import pytest
import torch

from clearclip_core.clip.attention import (
    Projections,
    align,
    aligned_query_and_key,
    attend,
    scaled_dot_product,
)
from clearclip_core.clip.methods import parse_terms


@pytest.fixture
def projections() -> Projections:
    generator = torch.Generator().manual_seed(3)
    parts = torch.randn(3, 2, 4, 7, 8, generator=generator, dtype=torch.float64)
    return Projections(*parts, torch.tensor([3.0, 11.0], dtype=torch.float64))


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


def numbers(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_a_turned_cloud_is_turned_back() -> None:
    """Where no direction is weak, five steps are enough for the orthogonal map."""
    cloud = torch.linalg.qr(numbers(2, 40, 6)).Q
    turn = torch.linalg.qr(numbers(2, 6, 6)).Q
    torch.testing.assert_close(align(cloud, cloud @ turn), turn, rtol=0, atol=1e-4)


def test_five_steps_stay_short_of_the_decomposition() -> None:
    """The published figures are of five steps; the exact map is another method."""
    source, target = numbers(50, 8), numbers(50, 8).flip(0)
    u, _, vh = torch.linalg.svd(source.T @ target)
    found = align(source, target)
    assert (found - u @ vh).norm() > 0.1
    torch.testing.assert_close(found.T @ found, (found.T @ found).T)


def test_the_pair_is_the_sum_of_both_products() -> None:
    query, key = numbers(2, 3, 11, 4), numbers(2, 3, 11, 4).flip(2)
    left, right = aligned_query_and_key(query, key, 0.3)
    without, _ = aligned_query_and_key(query, key, 0.0)
    own = left[..., 4:] / 0.3
    torch.testing.assert_close(right[..., 4:], own)
    torch.testing.assert_close(without[..., 4:], torch.zeros_like(own))
    expected = query @ right[..., :4].mT + 0.3 * own @ own.mT
    torch.testing.assert_close(left @ right.mT, expected)


def test_a_constant_query_and_key_stay_finite() -> None:
    left, right = aligned_query_and_key(torch.ones(1, 1, 5, 4), torch.ones(1, 1, 5, 4), 0.1)
    assert torch.isfinite(left @ right.mT).all()
