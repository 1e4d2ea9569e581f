"""Linear layers of a block that are not stock ones."""

from __future__ import annotations

import copy

import open_clip
import torch

from clearclip_core import METHODS, DenseEncoder
from tests.core.clip.test_dense_encoder import pixels_of


def test_adapters_in_the_place_of_a_linear_layer_run(clip_model: open_clip.CLIP) -> None:
    class Doubled(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    plain, adapted = copy.deepcopy(clip_model), copy.deepcopy(clip_model)
    for block, other in zip(
        plain.visual.transformer.resblocks, adapted.visual.transformer.resblocks, strict=True
    ):
        layer = Doubled(256, 64)
        layer.load_state_dict(block.mlp.c_proj.state_dict())
        other.mlp.c_proj = layer.requires_grad_(False)
        block.mlp.c_proj.weight *= 2
        block.mlp.c_proj.bias *= 2
    with torch.inference_mode():
        one, two = (
            DenseEncoder(model, METHODS["clearclip"]).encode(pixels_of(64, 64))
            for model in (plain, adapted)
        )
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
