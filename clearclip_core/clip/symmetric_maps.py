"""Sum of key-key attention maps whose exponentials are computed once for each pair of tokens.

``exp(k kᵀ/√d)`` is symmetric, so half of its products and exponentials are enough: those of bands
of rows, each with the columns from the band's first row on. What is left and right of the diagonal
is divided by the sums of different rows, so two sums of maps are kept.
"""

from __future__ import annotations

import math

import torch

#: Rows of a band. The fewer, the less is computed twice, and the smaller are the products.
_BAND_ROWS = 208

#: Largest logit up to which exponentials need not be kept from overflowing in float32: sums of
#: them neither do. A key with itself has the largest, so each row has an exponential of 1 or more.
_LARGEST_LOGIT = 60.0


def can_be_symmetric(keys: torch.Tensor) -> bool:
    """Return whether `apply_symmetric` is exact for keys (..., M, d).

    It is not in half precision, nor where logits are so large that softmax has to shift each row.
    Gradients do not flow through it.
    """
    if keys.requires_grad or keys.dtype not in (torch.float32, torch.float64):
        return False
    longest = torch.linalg.vector_norm(keys, dim=-1).amax()
    return bool(longest.square() <= _LARGEST_LOGIT * math.sqrt(keys.shape[-1]))


def apply_symmetric(keys: torch.Tensor, count: int, value: torch.Tensor) -> torch.Tensor:
    """Multiply ``Σ softmax(k kᵀ/√d)`` over blocks with values.

    Args:
        keys: (blocks, heads, M, d), padded with 0 from token `count` on; see `can_be_symmetric`.
        count: number of tokens.
        value: (heads, M, v), 0 for padding.

    Returns:
        (heads, M, v), of which rows from `count` on are of no use.
    """
    heads, padded = keys.shape[1:3]
    bands = [slice(first, first + _BAND_ROWS) for first in range(0, padded, _BAND_ROWS)]
    room = [keys.new_empty(heads, len(range(padded)[band]), padded - band.start) for band in bands]
    upper = [torch.zeros_like(each) for each in room]
    lower = [torch.zeros_like(each[..., _BAND_ROWS:]) for each in room]
    for key in keys:
        sums = _exponentials(key, count, bands, room)
        inverse = sums.reciprocal_()
        for band, exponentials, above, below in zip(bands, room, upper, lower, strict=True):
            above.addcmul_(exponentials, inverse[:, band, None])
            below.addcmul_(exponentials[..., _BAND_ROWS:], inverse[:, None, band.stop :])
    out = torch.zeros_like(value)
    for band, above, below in zip(bands, upper, lower, strict=True):
        out[:, band].baddbmm_(above, value[:, band.start :])
        out[:, band.stop :].baddbmm_(below.mT, value[:, band])
    return out


def _exponentials(
    key: torch.Tensor, count: int, bands: list[slice], room: list[torch.Tensor]
) -> torch.Tensor:
    """Compute the exponentials of one block, 0 for padding, into `room`.

    Returns:
        (heads, M) sums of all exponentials in each row; 1 for padding.
    """
    heads, padded, width = key.shape
    # Powers of 2 take a CPU half as long as those of e.
    left = key * (math.log2(math.e) / math.sqrt(width))
    sums = key.new_zeros(heads, padded)
    for band, exponentials in zip(bands, room, strict=True):
        torch.bmm(left[:, band], key[:, band.start :].mT, out=exponentials).exp2_()
        exponentials[..., max(0, count - band.start) :] = 0
        sums[:, band] += exponentials.sum(dim=-1)
        sums[:, band.stop :] += exponentials[..., _BAND_ROWS:].sum(dim=-2)
    sums[:, count:] = 1
    return sums
