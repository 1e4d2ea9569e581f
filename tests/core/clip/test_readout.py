"""Outlier tokens and sink channels."""

from __future__ import annotations

import pytest
import torch

from clearclip_core.clip.readout import (
    attention_outliers,
    damp_sinks,
    density_outliers,
    repair,
    sink_shares,
)


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_a_token_far_from_all_is_an_outlier() -> None:
    patches = numbers(2, 100, 8)
    patches[0, 17] += 50
    patches[1, 60] -= 50
    found = density_outliers(patches)
    assert found[0, 17]
    assert found[1, 60]
    assert found.sum(dim=1).tolist() == [5, 5]  # 0.95 quantile of 100


def test_a_common_offset_changes_no_outlier_in_float32() -> None:
    patches = numbers(1, 100, 8)
    shifted = (patches + 1000).float()
    assert torch.equal(density_outliers(shifted), density_outliers(patches))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_windows_of_few_patches_have_their_neighbours(count: int) -> None:
    assert density_outliers(numbers(1, count, 4)).shape == (1, count)
    assert not density_outliers(torch.zeros(1, count, 4)).any()


def test_attention_outliers_are_the_ten_with_the_most_of_the_cls_token() -> None:
    cls_row = torch.linspace(0.01, 0.2, 20)[None]
    own = torch.full((1, 20), 0.1)
    own[0, 19] = 0.5  # attends to itself
    found = attention_outliers(cls_row, own)
    assert found[0].nonzero().flatten().tolist() == list(range(9, 19))
    assert not attention_outliers(cls_row, torch.ones(1, 20)).any()


def test_an_outlier_becomes_the_mean_of_its_good_neighbours() -> None:
    patches = torch.arange(12.0).reshape(1, 12, 1)  # 3 rows of 4
    outliers = torch.zeros(1, 12, dtype=torch.bool)
    outliers[0, [0, 1]] = True
    found = repair(patches, (3, 4), outliers, zero=False)
    assert found[0, 0] == pytest.approx((4 + 5) / 2)
    assert found[0, 1] == pytest.approx((2 + 4 + 5 + 6) / 4)
    assert torch.equal(found[0, 2:], patches[0, 2:])


@pytest.mark.parametrize(("zero", "expected"), [(True, 0.0), (False, 3.0)])
def test_an_outlier_without_a_good_neighbour(zero: bool, expected: float) -> None:
    outliers = torch.tensor([[True, True, False]])
    found = repair(torch.tensor([[[3.0], [4.0], [5.0]]]), (1, 3), outliers, zero)
    assert found.flatten().tolist() == [expected, 5.0, 5.0]


def test_a_sink_is_mixed_with_its_neighbourhood_divided_by_nine() -> None:
    tokens = torch.zeros(1, 1 + 4, 40) + torch.arange(5.0)[None, :, None]  # 2 by 2, constant each
    tokens[0, 1, 7] += 100  # the first patch
    found = damp_sinks(tokens, (2, 2), (7,))
    channel = torch.tensor([1.0, 2, 3, 4])
    assert found[0, 1, 0] == pytest.approx(0.6 * 1 + 0.4 * float(channel.sum()) / 9)
    assert found[0, 1, 7] == pytest.approx(0.6 * 101 + 0.4 * (101 + 2 + 3 + 4) / 9)
    assert torch.equal(found[0, [0, 2, 3, 4]], tokens[0, [0, 2, 3, 4]])
    assert torch.equal(damp_sinks(tokens, (2, 2), (6,)), tokens)
    assert damp_sinks(tokens, (2, 2), ()) is tokens


def test_shares_are_one_at_five_times_the_mean() -> None:
    patch = torch.zeros(1, 1, 10)
    patch[..., 3], patch[..., 4] = 1.0, 1.0  # half of the sum each, five of ten means
    assert sink_shares(patch, (3, 0)).flatten().tolist() == [1.0, 0.0]
