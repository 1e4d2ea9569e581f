"""Outlier tokens of a Vision Transformer: find them and repair them from their neighbours.

A few patch tokens in the background of trained ViTs carry little of their own patch. Every function
treats the windows of a batch one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

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


def sink_shares(patches: torch.Tensor, channels: Sequence[int] | slice) -> torch.Tensor:
    """Compute the shares of some channels in their tokens, in units of the limit for sinks.

    Args:
        patches: (B, N, width).
        channels: indices of channels.

    Returns:
        (B, N, channels) float32 or float64; above 1 for sinks.
    """
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
