"""Linear layers of an image tower in int8 on a CPU, weights per output channel.

Activations are quantized while the model runs, for each token by its own largest number: a few
tokens of a Vision Transformer are many times as large as the others. Products are torch's oneDNN
operators on plain int8 tensors; nothing here is a quantized tensor, which torch removes.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import itertools
from typing import Any, NamedTuple

import torch
from torch import nn

from clearclip_core.clip.image_tower import checked_visual

#: Which linear layers of a block are in int8, the fastest first: all, or all but the first layer of
#: each FFN, which loses most.
INT8_LAYERS = ("all", "without-ffn-inputs")

#: Largest weight: 7 bits with sign. AVX2 without VNNI adds two products of an unsigned byte and a
#: signed one in 16 bits and cuts what is above 32767; 2 * 255 * 63 is below it, with 127 it is not.
_LARGEST_WEIGHT = 63

#: Largest activation beside its zero point.
_LARGEST_ACTIVATION = 127
_ZERO_POINT = 128

#: Scale of a channel or token that is all zeros.
_LEAST_SCALE = 1e-12


class QuantizedTokens(NamedTuple):
    """Tokens in 8 bits; a number is ``scale * (values - 128)``.

    Attributes:
        values: (..., N, in) uint8.
        scale: (..., N, 1) float32, of each token.
    """

    values: torch.Tensor
    scale: torch.Tensor


def quantize_tokens(tokens: torch.Tensor) -> QuantizedTokens:
    """Quantize each token by its own largest number: (..., N, in) float32.

    >>> quantize_tokens(torch.tensor([[1.0, -2.0], [0.0, 100.0]])).values.tolist()
    [[192, 1], [128, 255]]
    """
    largest = torch.linalg.vector_norm(tokens, ord=torch.inf, dim=-1, keepdim=True)
    scale = largest.div_(_LARGEST_ACTIVATION).clamp_min_(_LEAST_SCALE)
    shift = torch.tensor(_ZERO_POINT + 0.5)  # the conversion cuts, so that it rounds
    return QuantizedTokens(torch.addcdiv(shift, tokens, scale).to(torch.uint8), scale)


class Int8Linear(nn.Module):
    """``x Wᵀ + b`` with the weight in 7 bits for each output channel and the tokens in 8.

    Args:
        weight: (out, in) float32 on the CPU.
        bias: (out,) float32; None for zeros.

    Attributes:
        scale: (out,) float32, of each output channel.
        bias: (out,) float32.
        digest: (32,) uint8, SHA-256 of the weight in int8, which is kept in oneDNN's own layout: so
            the state of a model tells all of its numbers.
    """

    scale: torch.Tensor
    bias: torch.Tensor
    digest: torch.Tensor

    @torch.no_grad()
    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        scale = weight.abs().amax(dim=1).div_(_LARGEST_WEIGHT).clamp_min_(_LEAST_SCALE)
        values = quantize_weight(weight, scale)
        digest = hashlib.sha256(values.numpy().tobytes()).digest()
        self.register_buffer("scale", scale)
        self.register_buffer("bias", torch.zeros(len(weight)) if bias is None else bias.detach())
        self.register_buffer("digest", torch.tensor(list(digest), dtype=torch.uint8))
        self._zero_points = torch.zeros(len(weight), dtype=torch.int64)
        self._packed = torch.ops.onednn.qlinear_prepack(values, None)

    def forward(self, tokens: torch.Tensor, bias_factor: int = 1) -> torch.Tensor:
        """Compute ``x Wᵀ + bias_factor * b``: (..., N, in) -> (..., N, out) float32."""
        return self.multiply(quantize_tokens(tokens), bias_factor)

    def multiply(self, tokens: QuantizedTokens, bias_factor: int = 1) -> torch.Tensor:
        """Compute `forward` of tokens that are quantized already."""
        product = torch.ops.onednn.qlinear_pointwise(
            tokens.values.contiguous(),
            *(1.0, _ZERO_POINT),
            *(self._packed, self.scale, self._zero_points, None),
            *(1.0, 0, torch.float32),
            *("none", [], ""),
        )
        return torch.addcmul(self.bias * bias_factor, product, tokens.scale)


def quantize_weight(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Quantize a weight for each output channel: (out, in) float32 -> int8, -63 to 63.

    Args:
        weight: (out, in).
        scale: (out,), a channel's largest number over 63.

    >>> quantize_weight(torch.tensor([[1.0, -0.25]]), torch.tensor([1 / 63])).tolist()
    [[63, -16]]
    """
    return (weight / scale[:, None]).round_().to(torch.int8)


def to_int8(clip: nn.Module, layers: str = "all") -> nn.Module:
    """Copy a model with linear layers of its image tower's blocks in int8.

    The copy shares all other tensors with the model. The patch embedding, the projection into the
    text space and the text tower stay as they are.

    Args:
        clip: a model made by open_clip whose image tower is a native ViT, in float32 on the CPU.
        layers: one of `INT8_LAYERS`.

    Raises:
        ValueError: other layers, or an image tower that is no native ViT.
    """
    if layers not in INT8_LAYERS:
        raise ValueError(
            f"Expected argument `layers` to be one of {', '.join(INT8_LAYERS)}, but got {layers!r}."
        )
    tensors = itertools.chain(clip.parameters(), clip.buffers())
    made = copy.deepcopy(clip, {id(tensor): tensor for tensor in tensors})
    for block in checked_visual(made).transformer.resblocks:
        attn, mlp = block.attn, block.mlp
        parts = zip(attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3), strict=True)
        attn.int8_in_proj = nn.ModuleList(Int8Linear(*part) for part in parts)
        attn.in_proj_weight = attn.in_proj_bias = None
        attn.out_proj = Int8Linear(attn.out_proj.weight, attn.out_proj.bias)
        names = ("c_fc", "c_proj") if layers == "all" else ("c_proj",)
        for name in names:
            layer = getattr(mlp, name)
            if type(layer) is nn.Linear:
                setattr(mlp, name, Int8Linear(layer.weight, layer.bias))
    return made


def is_int8(visual: Any) -> bool:
    """Return whether an image tower has layers in int8."""
    return any(isinstance(module, Int8Linear) for module in visual.modules())


@functools.cache
def int8_trouble() -> str:
    """Return why int8 cannot be used on this CPU; empty where it can.

    torch has the operators wherever it was built with oneDNN, as on x86. Elsewhere they are missing
    or fail.
    """
    generator = torch.Generator().manual_seed(0)
    weight, tokens = (torch.randn(32, 64, generator=generator) for _ in range(2))
    try:
        found = Int8Linear(weight, None)(tokens)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        return f"this build of torch cannot multiply in int8 on this CPU ({type(error).__name__})"
    exact = tokens @ weight.T
    if not (found - exact).norm() < 0.05 * exact.norm():
        return "torch multiplies wrongly in int8 on this CPU"
    return ""
