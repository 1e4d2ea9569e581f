"""Attention variants of the last block: pure functions of query, key and value."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

#: Each term and the projections whose dot products weigh the values.
TERMS: dict[str, tuple[str, str] | None] = {
    "qk": ("query", "key"),
    "qq": ("query", "query"),
    "kk": ("key", "key"),
    "vv": ("value", "value"),
    "identity": None,
}

#: So many weights of attention maps exist at once on a CPU: 3 MiB in bf16.
_MAP_ELEMENTS = 3 << 19


class Projections(NamedTuple):
    """Query, key and value of one block, each (B, heads, N, d).

    A projection that the wanted attention does not need may be None.
    """

    query: torch.Tensor | None
    key: torch.Tensor | None
    value: torch.Tensor


def parse_terms(attention: str) -> tuple[str, ...]:
    """Split an attention's name into its terms: ``"qq+kk"`` -> ``("qq", "kk")``.

    Raises:
        ValueError: a term is unknown or stands twice.

    >>> parse_terms("qq+kk")
    ('qq', 'kk')
    """
    terms = tuple(attention.split("+"))
    if set(terms) - set(TERMS) or len(set(terms)) != len(terms):
        raise ValueError(
            f"Expected argument `attention` to be a sum of different terms of "
            f"{', '.join(TERMS)} (such as 'qq' or 'qq+kk'), but got {attention!r}."
        )
    return terms


def needed_projections(attention: str) -> frozenset[str]:
    """Names of the projections that an attention reads; ``"value"`` is always among them.

    >>> sorted(needed_projections("qq"))
    ['query', 'value']
    """
    pairs = (TERMS[term] for term in parse_terms(attention))
    return frozenset({"value", *(name for pair in pairs if pair for name in pair)})


def attend(projections: Projections, attention: str = "qq") -> torch.Tensor:
    """Sum over the terms of ``softmax(a bᵀ/√d) · value`` (Eq. 1 and Sec. 3.3 of the paper).

    The term ``identity`` is the value itself (MaskCLIP). A sum of terms adds the softmaxed
    maps, as SCLIP does, so its rows add up to the number of terms.

    Args:
        projections: query, key, value of shape (B, heads, N, d).
        attention: one of `TERMS`, or a sum of them such as ``"qq+kk"``.

    Returns:
        (B, heads, N, d), in the dtype of the value.

    Raises:
        ValueError: an unknown term, or a projection that it needs is None.

    >>> value = torch.eye(2).reshape(1, 1, 2, 2)
    >>> torch.equal(attend(Projections(None, None, value), "identity"), value)
    True
    """
    terms = parse_terms(attention)
    outputs = [_attend_term(projections, term) for term in terms]
    return torch.stack(outputs).sum(0) if len(outputs) > 1 else outputs[0]


def _attend_term(projections: Projections, term: str) -> torch.Tensor:
    pair = TERMS[term]
    if pair is None:
        return projections.value
    left, right = (getattr(projections, name) for name in pair)
    if left is None or right is None:
        raise ValueError(f"Attention {term!r} needs the projections {' and '.join(pair)}.")
    return scaled_dot_product(left, right, projections.value)


def scaled_dot_product(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``softmax(q kᵀ/√d) · v``; (B, heads, N, N) is never kept.

    Args:
        query: (B, heads, N, d), as the others.
        key: likewise.
        value: likewise.

    Returns:
        (B, heads, N, d), in the dtype of the value.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        return _few_heads_at_once(query, key, value)
    return F.scaled_dot_product_attention(query, key, value)


def _few_heads_at_once(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The same by plain products, which use a CPU's bf16 instructions.

    torch's fused kernel does not: it takes as long as in fp32. Maps of a few heads stay in the
    cache and in memory that the allocator has at hand; for all heads at once, fresh pages cost as
    much as the products.
    """
    batch, heads, tokens, width = query.shape
    step = max(1, _MAP_ELEMENTS // (tokens * key.shape[2]))
    merged = value.new_empty(batch, tokens, heads, width)  # as the output projection reads it
    for index in range(batch):
        for first in range(0, heads, step):
            few = slice(first, first + step)
            logits = torch.bmm(query[index, few] * width**-0.5, key[index, few].transpose(1, 2))
            out = torch.bmm(logits.softmax(dim=-1), value[index, few])  # (step, N, d)
            merged[index, :, few] = out.transpose(0, 1)
    return merged.transpose(1, 2)
