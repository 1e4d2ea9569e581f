"""CLIP's transformer blocks, decomposed into attention, residual and FFN."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import nn

from clearclip_core.clip.attention import attend, needed_projections
from clearclip_core.clip.methods import Method
from clearclip_core.clip.projections import Projections

PARTS = ("query", "key", "value")  # the order of the rows of a fused projection


class LayerMaps(NamedTuple):
    """Feature maps of one block at the patches (Eq. 2 of the paper)."""

    residual: torch.Tensor  # (B, N, width), ``X_res``, the block's input
    #: Name of an attention -> (B, N, width), ``X_attn`` with it. ``"qk"``, with which the model was
    #: trained, is among them.
    attentions: Mapping[str, torch.Tensor]

    @property
    def attention(self) -> torch.Tensor:
        """``X_attn`` with the attention of the trained model."""
        return self.attentions["qk"]

    @property
    def sum(self) -> torch.Tensor:
        """``X_sum = X_res + X_attn``."""
        return self.residual + self.attention


class LastBlocks(nn.Module):
    """The last residual attention blocks, one or more, decomposed as in Eqs. 1-3 of the paper.

    They share the stock blocks' parameters, whose attention must have fused q, k, v projections.
    """

    def __init__(self, blocks: Sequence[Any], method: Method) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.method = method

    def forward(
        self,
        tokens: torch.Tensor,
        grid_hw: tuple[int, int] | None = None,
        proxy: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute the input to ``ln_post`` of `Method`'s table: (B, N, width) -> (B, N, width).

        Args:
            tokens: the input of the first of the blocks, CLS first.
            grid_hw: patches (h, w), which the attention ``neighbour`` needs.
            proxy: (B, N - 1, S) features of a second encoder, which the attention ``proxy`` needs.

        The CLS token is that of the trained model for a method that weights classes by it; else it
        is read out as the patches are.
        """
        method, x, outputs = self.method, tokens, []
        *earlier, last = self.blocks
        for block in earlier:
            projections = self._project(block, x, "qk", method.attention)
            projections = projections._replace(grid_hw=grid_hw, proxy=proxy)
            outputs.append(attention_output(block, projections, method.attention))
            x = x + attention_output(block, projections, "qk")
            x = x + feed_forward(block, x)
        needed = (method.attention, "qk") if method.remove_redundancy else (method.attention,)
        projections = self._project(last, x, *needed)
        projections = projections._replace(grid_hw=grid_hw, proxy=proxy)
        outputs.append(attention_output(last, projections, method.attention))
        attended = method.alpha * sum(outputs[1:], outputs[0])
        summed = tokens + attended if method.residual else attended
        if method.ffn:
            summed = summed + feed_forward(last, summed)
        if not method.remove_redundancy:
            return summed
        return torch.cat([cls_output(last, x, projections), summed[:, 1:]], dim=1)

    def _project(self, block: Any, x: torch.Tensor, *attentions: str) -> Projections:
        return project(block, x, *attentions)._replace(key_weight=self.method.key_weight)


def layer_maps(
    tokens: torch.Tensor,
    blocks: Iterable[Any],
    attend_all: Callable[[Any, torch.Tensor, Sequence[str]], dict[str, torch.Tensor]],
    feed: Callable[[Any, torch.Tensor], torch.Tensor],
    last: Sequence[str] = (),
) -> Iterator[LayerMaps]:
    """Run residual attention blocks of any implementation and yield their feature maps.

    Args:
        tokens: (B, 1 + N, width), CLS first: the first block's input.
        attend_all: block, tokens and names of attentions -> their outputs by name.
        feed: block and tokens -> output of its FFN branch.

    Yields:
        The maps of each block, without the CLS token.
    """
    *earlier, final = blocks
    for block in earlier:
        outputs = attend_all(block, tokens, ("qk",))
        yield _at_patches(tokens, outputs)
        tokens = tokens + outputs["qk"]
        tokens = tokens + feed(block, tokens)
    yield _at_patches(tokens, attend_all(final, tokens, tuple(dict.fromkeys(("qk", *last)))))


def _at_patches(tokens: torch.Tensor, outputs: Mapping[str, torch.Tensor]) -> LayerMaps:
    return LayerMaps(tokens[:, 1:], {name: output[:, 1:] for name, output in outputs.items()})


def attention_outputs(
    block: Any, tokens: torch.Tensor, attentions: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Compute `attention_output` for several attentions by name, from one projection."""
    projections = project(block, tokens, *attentions)
    return {name: attention_output(block, projections, name) for name in attentions}


def run_block(block: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Run a stock block (Eqs. 2-3): (B, N, width) -> (B, N, width).

    The result is that of the stock block, whose fused inference kernel would keep an attention map
    of all heads and tokens in memory.
    """
    tokens = tokens + attention_output(block, project(block, tokens, "qk"), "qk")
    return tokens + feed_forward(block, tokens)


def cls_output(block: Any, tokens: torch.Tensor, projections: Projections) -> torch.Tensor:
    """Compute the CLS token of `run_block` alone: (B, N, width) -> (B, 1, width)."""
    assert projections.query is not None
    first = projections._replace(query=projections.query[:, :, :1])
    cls = tokens[:, :1] + attention_output(block, first, "qk")
    return cls + feed_forward(block, cls)


def attention_output(block: Any, projections: Projections, attention: str) -> torch.Tensor:
    """Compute ``X_attn`` of Eq. 2, layer scale included: (B, N, width).

    Args:
        projections: of `project`, for this attention.
    """
    return project_out(block, attend(projections, attention))


def project_out(block: Any, heads: torch.Tensor, bias_factor: int = 1) -> torch.Tensor:
    """Compute a block's output projection of attended values, layer scale included: (B, N, width).

    `heads`, (B, heads, N, d), are the sum of `bias_factor` outputs.
    """
    merged = heads.transpose(1, 2).flatten(2)  # (B, N, width)
    layer = block.attn.out_proj
    return block.ls_1(linear(merged, layer.weight, layer.bias * bias_factor))  # type: ignore[no-any-return]


def project(block: Any, tokens: torch.Tensor, *attentions: str) -> Projections:
    """Compute the projections of Eq. 1 that any of the attentions needs; the others are None.

    Args:
        tokens: (B, N, width), its input.
        attentions: one or more, see `attend`.
    """
    attn, normed = block.attn, block.ln_1(tokens)
    needed = frozenset().union(*map(needed_projections, attentions))
    wanted = [name for name in PARTS if name in needed]
    weight, bias = attn.in_proj_weight, attn.in_proj_bias
    if len(wanted) == 3:  # as one product
        flat = dict(zip(PARTS, linear(normed, weight, bias).chunk(3, dim=-1), strict=True))
    else:
        each = zip(PARTS, weight.chunk(3), bias.chunk(3), strict=True)
        flat = {name: linear(normed, rows, b) for name, rows, b in each if name in wanted}
    heads = {
        name: part.reshape(*part.shape[:2], attn.num_heads, -1).transpose(1, 2)
        for name, part in flat.items()
    }
    length = mean_length(normed) if "token_length" in needed else None
    return Projections(heads.get("query"), heads.get("key"), heads["value"], length)


def mean_length(tokens: torch.Tensor) -> torch.Tensor:
    """Compute (B,) mean Euclidean lengths of (B, N, width) tokens, in float32 or float64."""
    precise = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    return precise.square().sum(dim=-1).sqrt().mean(dim=-1)


def feed_forward(block: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Run the FFN branch of a block (Eq. 3), layer scale included; (B, N, width) as its input."""
    mlp = block.mlp
    hidden = apply_linear(mlp.c_fc, block.ln_2(tokens))  # (B, N, 4*width)
    if isinstance(mlp.gelu, QuickGELU) and not torch.is_grad_enabled():
        hidden = (
            hidden.mul(1.702).sigmoid_().mul_(hidden)
        )  # QuickGELU with one copy instead of three
    else:
        hidden = mlp.gelu(hidden)
    return block.ls_2(apply_linear(mlp.c_proj, hidden))  # type: ignore[no-any-return]


def apply_linear(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Apply `linear` with a module's weights; other modules than ``nn.Linear`` run themselves."""
    if type(module) is not nn.Linear:
        return module(x)  # type: ignore[no-any-return]
    return linear(x, module.weight, module.bias)


#: torch for x86, which has both libraries.
_HAS_ONEDNN = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Compute ``x Wᵀ + b``: (B, N, in) -> (B, N, out), on a CPU as a 1×1 convolution.

    On x86 torch multiplies float32 matrices with MKL, which leaves AVX-512 unused on CPUs that
    are not Intel's; so does its convolution in a single thread. oneDNN's own convolution uses it.
    In bfloat16 all are oneDNN, but only the convolution fuses the addition of the bias.
    """
    if not (x.device.type == "cpu" and _HAS_ONEDNN) or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    pixels = x.transpose(1, 2).unsqueeze(2)  # (B, in, 1, N), channels last already
    kernel = weight[:, :, None, None]
    if x.dtype is torch.float32:
        convolved = torch.mkldnn_convolution(pixels, kernel, bias, (0, 0), (1, 1), (1, 1), 1)
    else:
        convolved = F.conv2d(pixels, kernel, bias)
    return convolved.squeeze(2).transpose(1, 2)
