"""PEARL's alignment against the singular value decomposition that it approximates."""

from __future__ import annotations

import torch

from clearclip_core.clip.attention import align, aligned_query_and_key


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
