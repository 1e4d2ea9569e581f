"""Sink channels: the table, files beside the weights, and channels put into a model's tokens."""

from __future__ import annotations

from pathlib import Path

import torch

from clearclip_core import METHODS, DenseEncoder, load_model
from clearclip_core.clip.sink_channels import (
    find_sink_channels,
    save_sink_channels,
    sink_channels,
)
from tests.core.conftest import make_clip


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
