"""Key-key attention of several blocks among patches, added up and applied to values."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from clearclip_core.clip.symmetric_maps import apply_symmetric, can_be_symmetric

#: Numbers of a map that a CPU holds at a time. Its caches have room for them, so that no map goes
#: through memory.
_CACHED_NUMBERS = 1 << 18

#: Keys of a head are padded to a multiple of this, since products of odd sides take a CPU longer.
_ALIGNED = 16


class KeyMaps:
    """The key-key attention maps of several blocks, which are added up (RF-CLIP, AAAI 2026).

    Keys are copied head by head as the blocks run: those of a head then lie in one piece, and the
    projections that they are a part of need not stay in memory. Room for all is made with the
    first; small pieces made between the blocks would have their large ones made anew in each.

    Args:
        blocks: number of blocks.
    """

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._keys: torch.Tensor | None = None  # (blocks, B, heads, M, d), padded with 0
        self._added = 0

    def add(self, key: torch.Tensor) -> None:
        """Keep the keys of the next block.

        Args:
            key: (B, heads, 1 + N, d), CLS first.
        """
        batch, heads, count, width = key.shape
        if self._keys is None:
            padded = count + -count % _ALIGNED
            self._keys = key.new_empty(self._blocks, batch, heads, padded, width)
            self._keys[..., count:, :] = 0
        self._keys[self._added, :, :, :count] = key
        self._added += 1

    def apply(self, value: torch.Tensor) -> torch.Tensor:
        """Multiply the sum of the maps with values.

        The CLS token takes part in each block's softmax. Its row and column are dropped, so rows of
        a map sum to less than 1. Maps are made and dropped in pieces.

        Args:
            value: (B, heads, N, v).

        Returns:
            (B, heads, N, v).
        """
        assert self._keys is not None
        assert self._added == self._blocks
        batch, heads, count, _ = value.shape
        padding = self._keys.shape[3] - 1 - count
        padded = F.pad(value, (0, 0, 1, padding))  # nothing of the CLS token
        outputs = []
        for window in range(batch):
            for some in _heads(heads, count, value.is_cuda):
                own, values = self._keys[:, window, some], padded[window, some]
                if not value.is_cuda and can_be_symmetric(own):
                    outputs.append(apply_symmetric(own, 1 + count, values)[:, 1 : 1 + count])
                else:
                    outputs.append(_apply_by_rows(own, count, values))
        return torch.cat(outputs).reshape(value.shape)


def _apply_by_rows(keys: torch.Tensor, count: int, value: torch.Tensor) -> torch.Tensor:
    """Multiply the sum of the maps of all blocks with values, some rows at a time.

    Args:
        keys: (blocks, heads, M, d), CLS first, padded.
        count: number of patches.
        value: (heads, M, v), 0 for the CLS token and padding.

    Returns:
        (heads, count, v).
    """
    pieces = [
        torch.bmm(_map_rows(keys, rows, 1 + count), value)
        for rows in _rows(len(value), count, value.is_cuda)
    ]
    return torch.cat(pieces, dim=1)


def _map_rows(keys: torch.Tensor, rows: slice, count: int) -> torch.Tensor:
    """Add up some rows of the maps of all blocks.

    Args:
        keys: (blocks, heads, M, d), of which `count` are not padding.
        rows: rows of the maps.
        count: number of keys that are no padding.

    Returns:
        (heads, rows, M), 0 from column `count` on.
    """
    total = keys.new_zeros(keys.shape[1], rows.stop - rows.start, keys.shape[2])
    for key in keys:
        logits = torch.bmm(key[:, rows] * key.shape[-1] ** -0.5, key.mT)
        logits[..., count:] = -torch.inf
        total += logits.softmax(dim=-1)
    return total


def _heads(heads: int, patches: int, at_once: bool) -> Iterator[slice]:
    step = heads if at_once else max(1, _CACHED_NUMBERS // (1 + patches) ** 2)
    yield from (slice(start, start + step) for start in range(0, heads, step))


def _rows(heads: int, patches: int, at_once: bool) -> Iterator[slice]:
    """Yield slices of the patches' rows in maps whose first row is the CLS token's."""
    pieces = 1 if at_once else -(-heads * patches * (1 + patches) // _CACHED_NUMBERS)
    step = max(1, -(-patches // pieces))
    for start in range(1, 1 + patches, step):
        yield slice(start, min(start + step, 1 + patches))
