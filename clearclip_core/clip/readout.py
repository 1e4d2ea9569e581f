"""Read-outs that encode a picture twice or repair outlier tokens."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from clearclip_core.clip.attention import (
    KeyMaps,
    cls_row_and_diagonal,
    scaled_dot_product,
)
from clearclip_core.clip.methods import (
    AFFINITIES,
    EARLIER_TERMS,
    LAYERS,
    TERMS,
    Layers,
    Method,
    scaled_layer,
)
from clearclip_core.clip.projections import Projections
from clearclip_core.clip.transformer import (
    attention_output,
    feed_forward,
    project,
    project_out,
    run_block,
)

#: SC-CLIP: neighbours in feature space, and the share of tokens that are no outliers.
_NEAREST, _QUANTILE = 30, 0.95

#: SFP: factor on the CLS token's attention (0.3 · 5), and how many outliers a window has at most.
_CLS_FACTOR, _MOST = 1.5, 10

#: RF-CLIP: a token is a sink if a sink channel has more than this many times the mean share; then
#: this share of it comes from its neighbourhood.
_SINK_FACTOR, _NEIGHBOURHOOD = 5.0, 0.4

_SMALLEST = 1e-8


def density_outliers(patches: torch.Tensor) -> torch.Tensor:
    """Find the tokens in the sparsest places by their local outlier factor (SC-CLIP, TIP 2025).

    With κ_i the squared distance to the 30th nearest token, the factor of i is κ_i times the mean
    of 1/κ_j over its 30 nearest j. Outliers are above the 0.95 quantile of the window. A window of
    fewer than 32 patches has none: the 30 nearest would be all others, and factors tie.

    Args:
        patches: (B, N, width).

    Returns:
        (B, N) bool.
    """
    count = patches.shape[1]
    if count < _NEAREST + 2:
        return torch.zeros(patches.shape[:2], dtype=torch.bool, device=patches.device)
    precise = patches.to(torch.promote_types(patches.dtype, torch.float32))
    precise = precise - precise.mean(dim=1, keepdim=True)  # else large norms cancel
    squares = precise.square().sum(dim=-1)
    distances = squares[:, :, None] + squares[:, None] - 2 * precise @ precise.mT
    distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    near, index = distances.topk(_NEAREST, dim=-1, largest=False)  # (B, N, 30)
    radius = near.amax(dim=-1).clamp_min(_SMALLEST)
    inverse = radius.reciprocal()[:, None].expand(-1, count, -1).gather(2, index)
    factor = radius * inverse.mean(dim=-1)
    return factor > factor.quantile(_QUANTILE, dim=1, keepdim=True)


def attention_outliers(cls_row: torch.Tensor, diagonal: torch.Tensor) -> torch.Tensor:
    """Find the tokens that the CLS token attends to more than they to themselves (SFP, ICCV 2025).

    Candidates are tokens with 1.5 times the CLS token's attention above their own; the ten with
    the most of it are outliers.

    Args:
        cls_row: (B, N), attention from the CLS token to each patch, the mean of the heads.
        diagonal: (B, N), attention of each patch to itself, the mean of the heads.

    Returns:
        (B, N) bool.
    """
    wanted = cls_row.masked_fill(_CLS_FACTOR * cls_row <= diagonal, -torch.inf)
    values, index = wanted.topk(min(_MOST, wanted.shape[1]), dim=1)
    return torch.zeros_like(wanted, dtype=torch.bool).scatter(1, index, values > -torch.inf)


def repair(
    patches: torch.Tensor, grid_hw: tuple[int, int], outliers: torch.Tensor, zero: bool
) -> torch.Tensor:
    """Replace outliers by the mean of those of their 8 neighbours that are none.

    Args:
        patches: (B, h*w, width).
        grid_hw: patches (h, w).
        outliers: (B, h*w) bool.
        zero: an outlier without such a neighbour becomes 0 (SFP); otherwise it stays (SC-CLIP).

    Returns:
        (B, h*w, width); the input is not changed.
    """
    window, token = outliers.nonzero(as_tuple=True)
    index, weights = _neighbourhood(token, grid_hw)
    weights = weights * ~outliers[window[:, None], index]  # itself is an outlier
    count = weights.sum(dim=1, keepdim=True)
    share = weights / count.clamp_min(1)
    mean = torch.einsum("kn,knd->kd", share.to(patches.dtype), patches[window[:, None], index])
    if not zero:
        mean = torch.where(count > 0, mean, patches[window, token])
    return patches.index_put((window, token), mean)


def damp_sinks(
    tokens: torch.Tensor, grid_hw: tuple[int, int], channels: Sequence[int]
) -> torch.Tensor:
    """Mix sink tokens with their neighbourhood (RF-CLIP, AAAI 2026).

    A token's shares are its channels minus their minimum, divided by their sum. It is a sink if a
    sink channel has more than 5 / width. Then it becomes 0.6 of itself and 0.4 of the sum of its
    3×3 neighbourhood divided by 9, zeros outside the window.

    Args:
        tokens: (B, 1 + h*w, width), CLS first.
        grid_hw: patches (h, w).
        channels: sink channels of the weights.

    Returns:
        (B, 1 + h*w, width); the input is not changed.
    """
    if not channels:
        return tokens
    patches = tokens[:, 1:]
    window, token = (sink_shares(patches, channels).amax(dim=-1) > 1).nonzero(as_tuple=True)
    if not len(token):
        return tokens
    index, weights = _neighbourhood(token, grid_hw)
    around = patches[window[:, None], index]  # (sinks, 9, width)
    mean = torch.einsum("kn,knd->kd", weights.to(tokens.dtype) / 9, around)
    mixed = (1 - _NEIGHBOURHOOD) * patches[window, token] + _NEIGHBOURHOOD * mean
    return tokens.index_put((window, token + 1), mixed)


def sink_shares(patches: torch.Tensor, channels: Sequence[int]) -> torch.Tensor:
    """Compute channels' shares in (B, N, width) tokens: (B, N, channels), above 1 for sinks."""
    precise = torch.promote_types(patches.dtype, torch.float32)
    width = patches.shape[-1]
    least = patches.amin(dim=-1, keepdim=True).to(precise)
    total = patches.sum(dim=-1, keepdim=True, dtype=precise) - width * least
    some = patches[..., channels].to(precise) - least
    return some / total.clamp_min(_SMALLEST) * (width / _SINK_FACTOR)


def _neighbourhood(
    token: torch.Tensor, grid_hw: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the 3×3 neighbourhood of tokens: indices (K, 9), and (K, 9) 1 inside the window."""
    height, width = grid_hw
    steps = torch.arange(-1, 2, device=token.device)
    down, along = steps.repeat_interleave(3), steps.repeat(3)
    rows, columns = token[:, None] // width + down, token[:, None] % width + along
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    return index, inside.to(torch.float32)


_LEAST_COSINE = 0.4  # cosines below this average nothing
_SHARPNESS = 3.0  # factor on the differences of cosines that patches attend by
_CLS_SHARE = 0.3  # share of the CLS token that is added to the attention's output

_EPSILON = 1e-6


class Trunk(NamedTuple):
    """What the passes read of the blocks of one batch."""

    last_input: torch.Tensor  # (B, 1 + N, width), the last block's input, CLS first
    layers: Mapping[int, torch.Tensor]  # layer -> (B, 1 + N, width) its output; 0: the first input
    total: torch.Tensor | None  # (B, 1 + N, width), the sum of all outputs, if needed
    maps: KeyMaps | None  # of the keys of all blocks but the last; None if they are not needed
    outliers: torch.Tensor | None  # (B, N) bool, tokens to repair; None without a repair


class _Outputs:
    """Outputs of blocks that the passes read: those of some layers, and the sum of all.

    Args:
        wanted: the layers; 0 is the first block's input.
        is_summed: whether the sum is read, which takes the memory of one output.
    """

    def __init__(self, wanted: Collection[int], is_summed: bool) -> None:
        self._wanted, self.is_summed = wanted, is_summed
        self.layers: dict[int, torch.Tensor] = {}
        self.total: torch.Tensor | None = None

    def keep(self, layer: int, x: torch.Tensor) -> None:
        """Keep a layer's output if it is wanted."""
        if layer in self._wanted:
            self.layers[layer] = x

    def add(self, x: torch.Tensor) -> None:
        """Add a block's output to the sum, if that is read."""
        if self.is_summed:
            self.total = x.clone() if self.total is None else self.total.add_(x)


class TwoPasses(nn.Module):
    """The last block attending to features of earlier blocks (SC-CLIP, SFP, RF-CLIP).

    With ``F_l`` the output of block ``l`` of ``L`` at the patches, ``M`` the cosines of the
    affinity's layer, and ``S`` these with those below 0.4 set to 0 and each row divided by its sum,
    a pass is

    ``att(S · repair(F_{L-1}))``

    where ``att`` is the last block's attention output without residual and FFN. A second pass
    attends to the layers that are added up. The passes are added, and smoothed by the cosines of an
    earlier layer. Outliers are repaired in ``F_{L-1}`` and in the affinity's layer.

    Args:
        blocks: the last ones that `Method.blocks_read` says.
        sink_channels: of the weights, for the repair ``sinks``.

    Raises:
        ValueError: no sink channels for a method that needs them.
    """

    def __init__(
        self,
        blocks: Sequence[Any],
        method: Method,
        depth: int,
        sink_channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.method = method
        self.depth = depth
        self.affinity = AFFINITIES[method.affinity]
        self.second: Layers | None = LAYERS[method.layers] if method.layers else None
        self.sink_channels: Sequence[int] = ()
        if method.repair == "sinks":
            if sink_channels is None:
                raise ValueError(
                    "The method rfclip needs sink channels, which are published for OpenAI's "
                    "ViT-B/16 and ViT-L/14 alone."
                )
            self.sink_channels = sink_channels

    def forward(self, tokens: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
        """Compute the input to ``ln_post``: (B, 1 + N, width), CLS first.

        Args:
            tokens: (B, 1 + N, width), the first block's input, CLS first.
            grid_hw: patches (h, w).
        """
        trunk = self._run_blocks(tokens, grid_hw)
        cosines = self._cosines(trunk, grid_hw)
        average = self._average(cosines)
        inputs = self._inputs(trunk, average, grid_hw)
        heads = self._attend(inputs, trunk.maps, cosines)
        dense = project_out(self.blocks[-1], sum(heads[1:], heads[0]), len(heads))
        if not self.affinity.cls_key:
            dense = dense + _CLS_SHARE * sum(cls for _, cls in inputs)
        if self.affinity.smoothing is not None:
            smoothing = trunk.layers[scaled_layer(self.affinity.smoothing, self.depth)]
            dense = self._average(_cosines(smoothing[:, 1:])) @ dense
        if self.second is not None and self.second.mean:
            dense = dense / len(heads)
        return torch.cat([trunk.last_input[:, :1], dense], dim=1)

    def _run_blocks(self, x: torch.Tensor, grid_hw: tuple[int, int]) -> Trunk:
        """Run all blocks but the last, the last too where its output is needed."""
        *earlier, last = self.blocks
        outputs = _Outputs(self._wanted_layers(), self._needs_total())
        maps = KeyMaps(len(earlier)) if self._has_term("earlier") and earlier else None
        outliers = None

        first = self.depth - len(self.blocks)
        outputs.keep(first, x)
        for number, block in enumerate(earlier, first + 1):
            projections = project(block, x, "qk")
            if maps is not None and projections.key is not None:
                maps.add(projections.key)
            if self.method.repair == "attention" and block is earlier[-1]:
                outliers = attention_outliers(*cls_row_and_diagonal(projections))
            x = x + attention_output(block, projections, "qk")
            x = damp_sinks(x + feed_forward(block, x), grid_hw, self.sink_channels)
            outputs.keep(number, x)
            outputs.add(x)

        if outputs.is_summed:
            outputs.add(damp_sinks(run_block(last, x), grid_hw, self.sink_channels))
        if self.method.repair == "density":
            outliers = density_outliers(x[:, 1:])
        return Trunk(x, outputs.layers, outputs.total, maps, outliers)

    def _has_term(self, term: str) -> bool:
        """Return whether a pass attends by a term, such as ``earlier``."""
        return any(term in terms for terms in self.method.all_terms)

    def _needs_total(self) -> bool:
        """Return whether the sum of all blocks' outputs is read."""
        if self.affinity.layer is None:
            return True
        return self.second is not None and self.second.layers is None

    def _wanted_layers(self) -> set[int]:
        published = [self.affinity.layer, self.affinity.smoothing]
        if self.second is not None:
            published += self.second.layers or ()
        return {scaled_layer(layer, self.depth) for layer in published if layer is not None}

    def _cosines(self, trunk: Trunk, grid_hw: tuple[int, int]) -> torch.Tensor:
        """Compute the affinity (B, N, N): cosines in its layer."""
        if self.affinity.layer is None:
            assert trunk.total is not None
            return _cosines(trunk.total[:, 1:])
        patches = trunk.layers[scaled_layer(self.affinity.layer, self.depth)][:, 1:]
        return _cosines(self._repair(patches, trunk, grid_hw))

    def _average(self, cosines: torch.Tensor) -> torch.Tensor:
        """Return the matrix that averages alike patches: (B, N, N) -> (B, N, N)."""
        kept = cosines.where(cosines >= _LEAST_COSINE, 0)
        return kept / (kept.sum(dim=-1, keepdim=True) + _EPSILON)

    def _repair(
        self, patches: torch.Tensor, trunk: Trunk, grid_hw: tuple[int, int]
    ) -> torch.Tensor:
        if trunk.outliers is None:
            return patches
        return repair(patches, grid_hw, trunk.outliers, zero=self.method.repair == "attention")

    def _inputs(
        self, trunk: Trunk, average: torch.Tensor, grid_hw: tuple[int, int]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the patches (B, N, width) and the CLS token (B, 1, width) of each pass."""
        x = trunk.last_input
        inputs = [(average @ self._repair(x[:, 1:], trunk, grid_hw), x[:, :1])]
        if self.second is not None:
            summed = self._sum_of_layers(trunk, self.second)
            patches = summed[:, 1:]
            inputs.append((average @ patches if self.second.affine else patches, summed[:, :1]))
        return inputs

    def _sum_of_layers(self, trunk: Trunk, second: Layers) -> torch.Tensor:
        if second.layers is None:
            assert trunk.total is not None
            return trunk.total / self.depth if second.mean else trunk.total
        found = [trunk.layers[scaled_layer(layer, self.depth)] for layer in second.layers]
        summed = sum(found[1:], found[0])
        return summed / len(found) if second.mean else summed

    def _attend(
        self,
        inputs: Sequence[tuple[torch.Tensor, torch.Tensor]],
        maps: KeyMaps | None,
        cosines: torch.Tensor,
    ) -> list[torch.Tensor]:
        """Apply the mean of each pass's maps to its values: (B, heads, N, d) each.

        Inputs are patches (B, N, width) and CLS token (B, 1, width); cosines are (B, N, N).
        """
        own = [
            self._projections(*given, terms)
            for given, terms in zip(inputs, self.method.all_terms, strict=True)
        ]
        count = inputs[0][0].shape[1]
        values = [each.value[:, :, -count:] for each in own]
        earlier = [] if maps is None else _apply_to_all(maps, values)
        alike = self._alike(cosines) if self._has_term("affinity") else None

        heads = []
        for number, (terms, projections) in enumerate(zip(self.method.all_terms, own, strict=True)):
            outputs = []
            for term in terms:
                if term == "earlier":
                    outputs.append(earlier[number])
                elif term == "affinity":
                    assert alike is not None
                    outputs.append(_apply(alike, values[number]))
                else:
                    outputs.append(self._attend_by(term, projections)[:, :, -count:])
            heads.append(sum(outputs[1:], outputs[0]) / self._count_maps(terms))
        return heads

    def _count_maps(self, terms: Collection[str]) -> int:
        """Return how many attention maps some terms add up: ``earlier`` is one of each block."""
        return sum(self.depth - 1 if term == "earlier" else 1 for term in terms)

    def _alike(self, cosines: torch.Tensor) -> torch.Tensor:
        """Return the affinity's attention (B, N, N), for all heads."""
        if self.affinity.sparse:
            cosines = cosines.where(cosines >= _LEAST_COSINE, 0)
        return _attention_by(cosines)

    def _projections(
        self, patches: torch.Tensor, cls: torch.Tensor, terms: Sequence[str]
    ) -> Projections:
        tokens = torch.cat([cls, patches], dim=1) if self.affinity.cls_key else patches
        own = [term for term in terms if term not in EARLIER_TERMS]
        return project(self.blocks[-1], tokens, *(own or ["identity"]))

    def _attend_by(self, term: str, projections: Projections) -> torch.Tensor:
        value = projections.value
        if self.affinity.cls_key:
            value = F.pad(value[:, :, 1:], (0, 0, 1, 0))  # a key without a value
        left, right = (getattr(projections, name) for name in TERMS[term])
        return scaled_dot_product(left, right, value)


def _apply_to_all(maps: KeyMaps, values: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Apply maps to the values of all passes, each map made once."""
    width = values[0].shape[-1]
    return torch.split(maps.apply(torch.cat(list(values), dim=-1)), width, dim=-1)


def _cosines(patches: torch.Tensor) -> torch.Tensor:
    """Compute the cosines of all pairs of patches: (B, N, width) -> (B, N, N)."""
    unit = F.normalize(patches, dim=-1)
    return unit @ unit.mT


def _attention_by(cosines: torch.Tensor) -> torch.Tensor:
    """Return softmaxed differences of cosines to their mean, those below it left out: (B, N, N).

    The mean is of the window. A patch without any similarity attends to nothing.
    """
    logits = _SHARPNESS * (cosines - cosines.mean(dim=(1, 2), keepdim=True))
    return logits.masked_fill(logits < 0, -torch.inf).softmax(dim=-1).nan_to_num(0)


def _apply(weights: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Multiply a map (B, N, N) for all heads with values (B, heads, N, d)."""
    batch, heads, count, width = value.shape
    merged = value.transpose(1, 2).reshape(batch, count, heads * width)
    return (weights @ merged).reshape(batch, count, heads, width).transpose(1, 2)
