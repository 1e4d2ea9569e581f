"""Blocks of a transformer, run part by part."""

import copy

import open_clip
import torch

from clearclip_core import METHODS
from clearclip_core.clip.dense_encoder import (
    DenseEncoder,
)


def pixels_of(height: int, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1)).to(dtype)


def test_adapters_in_the_place_of_a_linear_layer_run(clip_model: open_clip.CLIP) -> None:
    class Doubled(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    plain, adapted = copy.deepcopy(clip_model), copy.deepcopy(clip_model)
    towers = (each.visual.transformer.resblocks for each in (plain, adapted))
    for block, other in zip(*towers, strict=True):
        layer = Doubled(256, 64)
        layer.load_state_dict(block.mlp.c_proj.state_dict())
        other.mlp.c_proj = layer.requires_grad_(False)
        block.mlp.c_proj.weight *= 2
        block.mlp.c_proj.bias *= 2
    with torch.inference_mode():
        encoders = (DenseEncoder(each, METHODS["clearclip"]) for each in (plain, adapted))
        one, two = (encoder.encode(pixels_of(64, 64)) for encoder in encoders)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
