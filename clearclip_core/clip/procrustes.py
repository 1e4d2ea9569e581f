"""Alignment of keys to queries by an orthogonal map: the attention of PEARL."""

from __future__ import annotations

import torch
import torch.nn.functional as F

#: Steps of the Newton-Schulz iteration. After five the map is far from orthogonal; the published
#: figures are of five.
_STEPS = 5

_EPSILON = 1e-6

#: Smallest norm that is divided by, far below that of tokens which differ at all.
_SMALLEST = 1e-20


def aligned_query_and_key(
    query: torch.Tensor, key: torch.Tensor, key_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a pair whose products are ``q (k R)ᵀ + α k_c k_cᵀ`` (PEARL, CVPR 2026).

    ``R`` is the map of `align`, ``k_c`` the key without its mean, ``α`` the weight of the keys
    among themselves. Both terms are one product of twice the width, so that attention needs no
    map of its own.

    Args:
        query: (B, heads, 1 + N, d), CLS first.
        key: (B, heads, 1 + N, d).
        key_weight: ``α``.

    Returns:
        Two tensors (B, heads, 1 + N, 2d) in the dtype of the query.
    """
    precise = torch.promote_types(query.dtype, torch.float32)
    q, k = query.to(precise), key.to(precise)
    lengths = q[:, :, 1:].norm(dim=-1, keepdim=True)
    weights = F.pad(lengths, (0, 0, 1, 0))  # the CLS token has no say in the means
    weights = weights / (weights.sum(dim=2, keepdim=True) + _EPSILON)
    centred_query = q - (weights * q).sum(dim=2, keepdim=True)
    centred_key = k - (weights * k).sum(dim=2, keepdim=True)
    turned = k @ align(centred_key, centred_query)
    left = torch.cat([q, key_weight * centred_key], dim=-1)
    right = torch.cat([turned, centred_key], dim=-1)
    return left.to(query.dtype), right.to(query.dtype)


def align(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compute the map ``R`` that turns `source` towards `target`: an approximate Procrustes.

    ``R = M (MᵀM)^(-1/2)`` with ``M = sourceᵀ · target``, its inverse root by five steps of the
    coupled Newton-Schulz iteration.

    Args:
        source: (..., N, d) float32 or float64.
        target: (..., N, d).

    Returns:
        (..., d, d).
    """
    products = source.mT @ target
    gram = products.mT @ products
    norm = torch.linalg.matrix_norm(gram, keepdim=True).clamp_min(_SMALLEST)
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    root, inverse_root = gram / norm + _EPSILON * identity, identity
    for _ in range(_STEPS):
        step = (3 * identity - inverse_root @ root) / 2
        root, inverse_root = root @ step, step @ inverse_root
    aligned: torch.Tensor = products @ inverse_root / norm.sqrt()
    return aligned
