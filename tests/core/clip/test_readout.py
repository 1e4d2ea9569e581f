"""Outlier tokens and sink channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clearclip_core import METHODS, DenseEncoder, load_model
from clearclip_core.clip.loading import find_sink_channels, save_sink_channels, sink_channels
from clearclip_core.clip.readout import (
    attention_outliers,
    damp_sinks,
    density_outliers,
    repair,
    sink_shares,
)
from tests.core.conftest import make_clip


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


def test_other_weights_have_those_that_were_saved(tmp_path: Path) -> None:
    assert sink_channels("demo", tmp_path) is None
    path = save_sink_channels("demo", (3, 5), tmp_path)
    assert path.is_relative_to(tmp_path / "sink-channels")
    assert sink_channels("demo", tmp_path) == (3, 5)
    assert load_model("demo", device="cpu", folder=tmp_path).sink_channels == (3, 5)
    assert sink_channels("ViT-B-16/random", tmp_path) is None


def test_channels_that_are_extreme_in_a_few_tokens_are_found() -> None:
    clip = make_clip(layers=2)
    with torch.no_grad():
        for block in clip.visual.transformer.resblocks:
            for part in (block.attn.out_proj, block.mlp.c_proj):
                part.weight.mul_(0.1)
                part.bias.mul_(0.1)
        # Behind ln_pre all tokens are of one norm: the first block's FFN brings the extreme ones.
        hidden = clip.visual.transformer.resblocks[0].mlp.c_fc
        hidden.bias[0] = -40.0
        hidden.weight[0] = 0
        hidden.weight[0, 9] = 20.0  # on where channel 9 is large
        clip.visual.transformer.resblocks[0].mlp.c_proj.weight[[11, 30], 0] = 3.0
        clip.visual.positional_embedding[[4, 9], 9] += 10.0
    encoder = DenseEncoder(clip, METHODS["clearclip"])
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert find_sink_channels(encoder, [pixels[:1], pixels[1:]]) == (11, 30)


def test_tokens_of_one_norm_have_no_sink_channel() -> None:
    clip = make_clip(layers=1)  # the last block's input is ln_pre's output
    encoder = DenseEncoder(clip, METHODS["clearclip"])
    assert find_sink_channels(encoder, [torch.zeros(1, 3, 64, 64)]) == ()
