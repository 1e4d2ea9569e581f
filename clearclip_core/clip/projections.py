"""Query, key and value: what attentions are functions of."""

from typing import NamedTuple

import torch


class Projections(NamedTuple):
    """Query, key and value of one block, and what else an attention depends on.

    Parts that the attention does not need may be None.
    """

    query: torch.Tensor | None  # (B, heads, N, d); for ``qk`` it may have fewer tokens than the key
    key: torch.Tensor | None  # (B, heads, N, d)
    value: torch.Tensor  # (B, heads, N, d)
    #: (B,) float32 or float64, mean Euclidean length of a window's tokens before the projection.
    token_length: torch.Tensor | None = None
    grid_hw: tuple[int, int] | None = None  # patches (h, w) of the N - 1 tokens after the CLS token
    key_weight: float = 0.08  # weight of the keys among themselves in ``procrustes``; no unit
    proxy: torch.Tensor | None = None  # (B, N - 1, S) features of a second encoder at the patches
