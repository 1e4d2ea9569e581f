"""Attention variants of the last blocks: pure functions of query, key and value."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from clearclip_core.clip.methods import (
    EARLIER_TERMS,
    find_attention,
    needed_parts,
    parse_terms,
)
from clearclip_core.clip.projections import Projections

#: Steps of the Newton-Schulz iteration. After five the map is far from orthogonal; the published
#: figures are of five.
_STEPS = 5

_EPSILON = 1e-6

_SMALLEST = 1e-20  # smallest norm that is divided by, far below that of tokens which differ at all


def attend_aligned(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, key_weight: float
) -> torch.Tensor:
    """Compute ``softmax((q (k R)ᵀ + α k_c k_cᵀ)/√d) · v``, of `Projections` (PEARL, CVPR 2026).

    ``R`` is the map of `align`, ``k_c`` the key without its mean, ``α`` the weight of the keys
    among themselves. Both terms are one product of twice the width, so that attention needs no
    map of its own.
    """
    precise = torch.promote_types(query.dtype, torch.float32)
    q, k = query.to(precise), key.to(precise)
    lengths = q[:, :, 1:].norm(dim=-1, keepdim=True)
    weights = F.pad(lengths, (0, 0, 1, 0))  # the CLS token has no say in the means
    weights = weights / (weights.sum(dim=2, keepdim=True) + _EPSILON)
    centred_query = q - (weights * q).sum(dim=2, keepdim=True)
    centred_key = k - (weights * k).sum(dim=2, keepdim=True)
    turned = k @ align(centred_key, centred_query)
    left = torch.cat([q, key_weight * centred_key], dim=-1).to(query.dtype)
    right = torch.cat([turned, centred_key], dim=-1).to(query.dtype)
    return scaled_dot_product(left, right, value, scale=query.shape[-1] ** -0.5)


def align(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compute the map ``R`` that turns `source` towards `target`: an approximate Procrustes.

    ``R = M (MᵀM)^(-1/2)`` with ``M = sourceᵀ · target``, its inverse root by five steps of the
    coupled Newton-Schulz iteration. `source` and `target` are (..., N, d), float32 or float64, and
    ``R`` is (..., d, d).
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


#: ProxyCLIP's shift of the similarities, in means of them, and their scale.
_PROXY_SHIFT, _PROXY_SCALE = 1.2, 3.0

#: Standard deviation of ``neighbour``'s Gaussian in patches (NACLIP's released settings).
_NEIGHBOUR_STD = 5.0

#: Weights of attention maps that are computed at once on a CPU: 3 MiB in bf16.
_MAP_ELEMENTS = 3 << 19


def needed_projections(attention: str) -> frozenset[str]:
    """Return the names of the parts of `Projections` that an attention needs, with ``"value"``.

    >>> sorted(needed_projections("qq"))
    ['query', 'value']
    """
    needed = {"value"}.union(*(needed_parts(term) or () for term in parse_terms(attention)))
    return frozenset(needed - EARLIER_TERMS)


def attend(projections: Projections, attention: str = "qq") -> torch.Tensor:
    """Sum ``softmax(a bᵀ/√d) · value`` over the terms (Eq. 1 and Sec. 3.3 of the paper).

    The term ``identity`` is the value itself (MaskCLIP), ``ensemble`` is that of
    `attend_ensemble` (GEM), ``neighbour`` that of `attend_neighbours` (NACLIP), ``procrustes``
    that of `attend_aligned` (PEARL), ``proxy`` that of `attend_proxy` (ProxyCLIP). ``affinity`` and
    ``earlier`` are maps of earlier blocks, which `clearclip_core.clip.readout` applies. A sum of
    terms adds the softmaxed maps, as
    SCLIP does, so its rows add up to the number of terms.

    Args:
        projections: query, key, value of shape (B, heads, N, d).
        attention: one of `TERMS` or of another package, or a sum of them such as ``"qq+kk"``.

    Returns:
        (B, heads, N, d), in the dtype of the value.

    >>> value = torch.eye(2).reshape(1, 1, 2, 2)
    >>> torch.equal(attend(Projections(None, None, value), "identity"), value)
    True
    """
    terms = parse_terms(attention)
    outputs = [_attend_term(projections, term) for term in terms]
    return torch.stack(outputs).sum(0) if len(outputs) > 1 else outputs[0]


def _attend_term(projections: Projections, term: str) -> torch.Tensor:
    """Compute one term of an attention: (B, heads, N, d)."""
    if term in EARLIER_TERMS:
        raise ValueError(f"Attention {term!r} needs the outputs of earlier blocks.")
    names = needed_parts(term) or ()
    parts = [getattr(projections, name) for name in names]
    if any(part is None for part in parts):
        raise ValueError(f"Attention {term!r} needs the projections {' and '.join(names)}.")

    added = find_attention(term)
    if added is not None:
        return added.attend(projections)
    return _attend_own(term, parts, projections)


def _attend_own(term: str, parts: Sequence[torch.Tensor], projections: Projections) -> torch.Tensor:
    """Compute a term of `TERMS` from the parts of `Projections` that it needs."""
    value = projections.value
    if term == "identity":
        return value
    if term == "ensemble":
        query, key, token_length = parts
        return attend_ensemble(query, key, value, token_length)
    if term == "neighbour":
        key, *_ = parts
        assert projections.grid_hw is not None
        return attend_neighbours(key, value, projections.grid_hw)
    if term == "procrustes":
        query, key = parts
        return attend_aligned(query, key, value, projections.key_weight)
    if term == "proxy":
        (proxy,) = parts
        return attend_proxy(proxy, value)
    left, right = parts
    return scaled_dot_product(left, right, value)


def attend_ensemble(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, token_length: torch.Tensor
) -> torch.Tensor:
    """Compute GEM's attention: the mean of three self-self attentions on the unit sphere.

    Query, key and value each take the place of z: ``z`` of length 1, once
    ``z ← softmax(τ z zᵀ) z`` and of length 1 again, then ``softmax(τ z zᵀ) · value``, with
    ``τ = token_length / √d`` (Bousselham et al., "Grounding Everything", CVPR 2024). Shapes are
    those of `Projections`.
    """
    length = token_length.to(value.dtype)[:, None, None, None]
    outputs = []
    for part in (query, key, value):
        z = F.normalize(part, dim=-1)
        z = F.normalize(scaled_dot_product(z * length, z, z), dim=-1)  # which divides by √d
        outputs.append(scaled_dot_product(z * length, z, value))
    return torch.stack(outputs).mean(0)


def attend_neighbours(
    key: torch.Tensor, value: torch.Tensor, grid_hw: tuple[int, int]
) -> torch.Tensor:
    """Compute ``softmax(k kᵀ/√d + ω) · v``, which prefers patches that are near (NACLIP).

    ``ω`` is 0 from and to the CLS token, and between patches ``exp(-distance²/(2·5²))`` with the
    distance in patches (Hajimiri et al., "Pay Attention to Your Neighbours", WACV 2025). Shapes are
    those of `Projections`.
    """
    precise = torch.promote_types(key.dtype, torch.float32)
    sides = [torch.arange(side, dtype=precise, device=key.device) for side in grid_hw]
    variance = 2 * _NEIGHBOUR_STD**2
    down, along = (torch.exp((side[:, None] - side).square() / -variance) for side in sides)
    bias = F.pad(torch.kron(down, along), (1, 0, 1, 0))  # (1 + h*w, 1 + h*w)
    return scaled_dot_product(key, key, value, bias.to(key.dtype))


def attend_proxy(proxy: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Let patches attend to those that a second encoder finds alike (ProxyCLIP, ECCV 2024).

    With the cosines S of the second encoder's features, the attention of all heads is
    ``softmax(3 (S - 1.2 · mean(S)))`` over the patches where that is not below 0. The CLS token has
    no part in it. A patch always attends to itself: where all patches are alike, as in a picture of
    one colour, nothing else would be left.

    Args:
        proxy: (B, N - 1, S).
        value: (B, heads, N, d), CLS first.

    Returns:
        (B, heads, N, d) in the dtype of the value, 0 for the CLS token.
    """
    precise = torch.promote_types(proxy.dtype, torch.float32)
    unit = F.normalize(proxy.to(precise), dim=-1)
    cosines = unit @ unit.mT  # (B, N - 1, N - 1)
    logits = _PROXY_SCALE * (cosines - _PROXY_SHIFT * cosines.mean(dim=(1, 2), keepdim=True))
    is_self = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    weights = logits.masked_fill((logits < 0) & ~is_self, -torch.inf).softmax(dim=-1)
    attended = weights.to(value.dtype)[:, None] @ value[:, :, 1:]
    return F.pad(attended, (0, 0, 1, 0))


def scaled_dot_product(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """Compute ``softmax(q kᵀ/√d) · v`` without keeping the maps (B, heads, M, N) in memory.

    Args:
        query: (B, heads, M, d).
        key: (B, heads, N, d).
        value: (B, heads, N, e).
        bias: (M, N), added before the softmax.
        scale: factor of the products in place of 1/√d.

    Returns:
        (B, heads, M, e), in the dtype of the value.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        return _few_heads_at_once(query, key, value, bias, scale)
    return F.scaled_dot_product_attention(query, key, value, bias, scale=scale)


def _few_heads_at_once(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    scale: float | None,
) -> torch.Tensor:
    """Compute `scaled_dot_product` by plain products, which use a CPU's bf16 instructions.

    torch's fused kernel does not use them: it takes as long as in fp32. Maps of a few heads stay
    in the cache and in memory that the allocator reuses. Maps of all heads would need new pages,
    which cost as much time as the products.
    """
    batch, heads, tokens, width = query.shape
    factor = width**-0.5 if scale is None else scale
    step = max(1, _MAP_ELEMENTS // (tokens * key.shape[2]))
    # In the order in which the output projection reads it.
    merged = value.new_empty(batch, tokens, heads, value.shape[-1])
    for index in range(batch):
        for first in range(0, heads, step):
            few = slice(first, first + step)
            logits = torch.bmm(query[index, few] * factor, key[index, few].transpose(1, 2))
            if bias is not None:
                logits += bias
            out = torch.bmm(logits.softmax(dim=-1), value[index, few])  # (step, N, d)
            merged[index, :, few] = out.transpose(0, 1)
    return merged.transpose(1, 2)


def cls_row_and_diagonal(projections: Projections) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention from the CLS token to patches, and of patches to themselves.

    Returns:
        Two (B, N), means of the heads.
    """
    query, key = projections.query, projections.key
    assert query is not None
    assert key is not None
    query = query * key.shape[-1] ** -0.5
    row = (query[:, :, :1] @ key.mT).softmax(dim=-1)[:, :, 0, 1:]
    totals = [(query[:, head] @ key[:, head].mT).logsumexp(dim=-1) for head in range(key.shape[1])]
    own = ((query * key).sum(dim=-1) - torch.stack(totals, dim=1)).exp()
    return row.mean(dim=1), own[:, :, 1:].mean(dim=1)


#: Numbers of a map that a CPU holds at a time. Its caches have room for them, so that no map goes
#: through memory.
_CACHED_NUMBERS = 1 << 18

#: Keys of a head are padded to a multiple of this, since products of odd sides take a CPU longer.
_ALIGNED = 16


class KeyMaps:
    """The key-key attention maps of several blocks, which are added up (RF-CLIP, AAAI 2026).

    Keys are copied head by head as the blocks run: those of a head then lie in one piece, and the
    projections that they are a part of need not stay in memory. Room for all is made with the
    first; small pieces made between the blocks would have their large ones made again in each.
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
        """Multiply the sum of the maps with values: (B, heads, N, v).

        The CLS token takes part in each block's softmax. Its row and column are dropped, so rows of
        a map sum to less than 1. Maps are made and dropped in pieces.
        """
        assert self._keys is not None
        assert self._added == self._blocks
        batch, heads, count, _ = value.shape
        padding = self._keys.shape[3] - 1 - count
        padded = F.pad(value, (0, 0, 1, padding))  # nothing of the CLS token
        outputs = [
            _apply_by_rows(self._keys[:, window, some], count, padded[window, some])
            for window in range(batch)
            for some in _heads(heads, count, value.is_cuda)
        ]
        return torch.cat(outputs).reshape(value.shape)


def _apply_by_rows(keys: torch.Tensor, count: int, value: torch.Tensor) -> torch.Tensor:
    """Multiply the sum of the maps of all blocks with values: (heads, count, v).

    Keys are (blocks, heads, M, d), CLS first, padded; values are 0 for CLS and padding.
    """
    pieces = [
        torch.bmm(_map_rows(keys, rows, 1 + count), value)
        for rows in _rows(len(value), count, value.is_cuda)
    ]
    return torch.cat(pieces, dim=1)


def _map_rows(keys: torch.Tensor, rows: slice, count: int) -> torch.Tensor:
    """Add up some rows of the maps of all blocks: (heads, rows, M), 0 from column `count` on.

    Args:
        keys: (blocks, heads, M, d); the first `count` are keys, the others padding.
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
