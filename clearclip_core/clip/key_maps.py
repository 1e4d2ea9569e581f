"""Key-key attention of several blocks among patches, added up and applied to values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

#: Numbers of a map that a CPU holds at a time. Its second-level cache has room for them, so that
#: no map goes through memory.
_CACHED_NUMBERS = 1 << 16


def apply_key_maps(keys: Sequence[torch.Tensor], value: torch.Tensor) -> torch.Tensor:
    """Multiply the sum of blocks' key-key attention with values (RF-CLIP, AAAI 2026).

    The CLS token takes part in each block's softmax. Its row and column are dropped, so rows of a
    map sum to less than 1. Maps are made and dropped in pieces.

    Args:
        keys: (B, heads, 1 + N, d) of each block, CLS first.
        value: (B, heads, N, v).

    Returns:
        (B, heads, N, v).
    """
    batch, heads, count, _ = value.shape
    outputs = []
    for window in range(batch):
        for some in _heads(heads, value.is_cuda):
            own = [key[window, some] for key in keys]  # (heads, 1 + N, d) each
            pieces = [
                _map_rows(own, rows)[:, :, 1:] @ value[window, some]
                for rows in _rows(count, value.is_cuda)
            ]
            outputs.append(torch.cat(pieces, dim=1))
    return torch.cat(outputs).reshape(value.shape)


def _map_rows(keys: Sequence[torch.Tensor], rows: slice) -> torch.Tensor:
    """Add up some rows of the maps of all blocks: (heads, rows, 1 + N)."""
    total: torch.Tensor | None = None
    for key in keys:
        query = key[:, rows] * key.shape[-1] ** -0.5
        weights = torch.bmm(query, key.mT).softmax(dim=-1)
        total = weights if total is None else total + weights
    assert total is not None
    return total


def _heads(heads: int, at_once: bool) -> Iterator[slice]:
    step = heads if at_once else 1
    yield from (slice(start, start + step) for start in range(0, heads, step))


def _rows(patches: int, at_once: bool) -> Iterator[slice]:
    """Yield slices of the patches' rows in maps whose first row is the CLS token's."""
    step = patches if at_once else max(1, _CACHED_NUMBERS // (1 + patches))
    for start in range(1, 1 + patches, step):
        yield slice(start, min(start + step, 1 + patches))
