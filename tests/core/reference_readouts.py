"""Read-outs of earlier blocks written out plainly, one window, one token and one head at a time.

The formulas are those of the methods' papers and released settings. Nothing here is shared with
the library.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F


def layer_of_12(layer: int, depth: int) -> int:
    """The proposal: the same share of the depth."""
    return min(max(math.floor(layer * depth / 12 + 0.5), 1), depth - 1)


def projected(block: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(N, width) -> query, key, value (heads, N, d) of the block's own norm and projection."""
    qkv = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    query, key, value = (
        part.reshape(len(x), block.attn.num_heads, -1).transpose(0, 1)
        for part in qkv.chunk(3, dim=-1)
    )
    return query, key, value


def neighbour_map(key: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
    """NACLIP's map (heads, 1 + N, 1 + N)."""
    height, width = grid_hw
    near = [[0.0] * (1 + height * width)]
    for i in range(height * width):
        squares = [
            (i // width - j // width) ** 2 + (i % width - j % width) ** 2
            for j in range(height * width)
        ]
        near.append([0.0, *(math.exp(-square / (2 * 5**2)) for square in squares)])
    logits = key @ key.transpose(-1, -2) / key.shape[-1] ** 0.5
    return (logits + torch.tensor(near, dtype=torch.float64).to(key)).softmax(dim=-1)


def procrustes_map(query: torch.Tensor, key: torch.Tensor, weight: float) -> torch.Tensor:
    """PEARL's map (heads, 1 + N, 1 + N), head by head."""
    maps = []
    for q, k in zip(query, key, strict=True):
        w = q.square().sum(dim=1).sqrt()
        w[0] = 0
        w = w / (w.sum() + 1e-6)
        q_mean, k_mean = w @ q, w @ k
        m = (k - k_mean).T @ (q - q_mean)
        a = m.T @ m
        n = a.square().sum().sqrt()
        one = torch.eye(len(a)).to(a)
        y, z = a / n + 1e-6 * one, one
        for _ in range(5):
            t = (3 * one - z @ y) / 2
            y, z = y @ t, t @ z
        r = m @ z / n.sqrt()
        own = (k - k_mean) @ (k - k_mean).T
        maps.append(((q @ (k @ r).T + weight * own) / q.shape[1] ** 0.5).softmax(dim=-1))
    return torch.stack(maps)


def proxy_map(second: torch.Tensor) -> torch.Tensor:
    """ProxyCLIP's map (1 + N, 1 + N), patch by patch; the CLS token's row and column are 0.

    The normalisation and the masking of the paper, its shift 1.2 and its scale 3. Where a row has
    nothing left, which divides 0 by 0 there, the patch attends to itself.
    """
    patches = second.double().flatten(0, 1)
    count = len(patches)
    alike = [[float(a @ b / (a.norm() * b.norm())) for b in patches] for a in patches]
    shift = 1.2 * sum(map(sum, alike)) / count**2
    rows = torch.zeros(1 + count, 1 + count, dtype=torch.float64)
    for i in range(count):
        kept = {
            j: math.exp(3 * (alike[i][j] - shift)) for j in range(count) if alike[i][j] >= shift
        }
        kept = kept or {i: 1.0}
        for j, weight in kept.items():
            rows[1 + i, 1 + j] = weight / sum(kept.values())
    return rows


class Tower(NamedTuple):
    """What a read-out needs of a model: open_clip's blocks, and the window's grid of patches."""

    blocks: Sequence[Any]
    grid_hw: tuple[int, int]

    @property
    def last(self) -> Any:
        return self.blocks[-1]

    def around(self, index: int) -> list[int]:
        """The up to 8 neighbours of a patch, and itself."""
        height, width = self.grid_hw
        row, column = divmod(index, width)
        return [
            r * width + c
            for r in range(max(row - 1, 0), min(row + 2, height))
            for c in range(max(column - 1, 0), min(column + 2, width))
        ]


def cosines(patches: torch.Tensor) -> torch.Tensor:
    unit = patches / patches.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return unit @ unit.T


def cut(similarity: torch.Tensor) -> torch.Tensor:
    return torch.where(similarity < 0.4, torch.zeros_like(similarity), similarity)


def shares(similarity: torch.Tensor) -> torch.Tensor:
    kept = cut(similarity)
    return kept / (kept.sum(dim=1, keepdim=True) + 1e-6)


def affinity_map(similarity: torch.Tensor) -> torch.Tensor:
    """Rows of softmax; a patch that was zeroed is like none, and its row is 0 rather than 0/0."""
    logits = 3 * (similarity - similarity.mean())
    weights = logits.masked_fill(logits < 0, -math.inf).softmax(dim=-1)
    return torch.where(weights.isnan(), torch.zeros_like(weights), weights)


def repaired(tower: Tower, patches: torch.Tensor, outliers: set[int], keep: bool) -> torch.Tensor:
    """Outliers become the mean of their good neighbours; without one they stay or become 0."""
    result = patches.clone()
    for index in outliers:
        good = [other for other in tower.around(index) if other not in outliers]
        if good:
            result[index] = patches[good].mean(dim=0)
        elif not keep:
            result[index] = 0
    return result


def density_outliers(patches: torch.Tensor) -> set[int]:
    """SC-CLIP's local outlier factor, above its 95 % quantile."""
    count = len(patches)
    if count < 32:  # each has all others for neighbours
        return set()
    distances = [[float((a - b).square().sum()) for b in patches] for a in patches]
    near = []
    for i in range(count):
        others = sorted((j for j in range(count) if j != i), key=distances[i].__getitem__)
        near.append(others[:30])
    radius = [distances[i][near[i][-1]] for i in range(count)]
    factors = torch.tensor(
        [radius[i] * sum(1 / radius[j] for j in near[i]) / len(near[i]) for i in range(count)],
        dtype=torch.float64,
    )
    limit = torch.quantile(factors, 0.95)
    return {i for i in range(count) if factors[i] > limit}


def attention_outliers(block: Any, x: torch.Tensor) -> set[int]:
    """SFP's: patches that the CLS token looks at more than they look at themselves."""
    query, key, _ = projected(block, x)
    weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=0)
    count = len(x) - 1
    candidates = [i for i in range(count) if 1.5 * weights[0, 1 + i] > weights[1 + i, 1 + i]]
    return set(sorted(candidates, key=lambda i: -float(weights[0, 1 + i]))[:10])


def out(block: Any, heads: torch.Tensor) -> torch.Tensor:
    """(heads, N, d) -> (N, width), layer scale included."""
    merged = heads.transpose(0, 1).flatten(1)
    return block.ls_1(block.attn.out_proj(merged))


def middle(tower: Tower, x: torch.Tensor, of_sfp: bool) -> torch.Tensor:
    """SC-CLIP's or SFP's: first block's input (1 + N, width) -> input of ln_post (N, width)."""
    depth, layers = len(tower.blocks), [x]
    for block in tower.blocks[:-1]:
        before = layers[-1]
        layers.append(block(before[None])[0])
    x = layers[depth - 1]
    four, nine = (layers[layer_of_12(layer, depth)][1:] for layer in (4, 9))
    if of_sfp:
        outliers = attention_outliers(tower.blocks[-2], before) if depth > 1 else set()
    else:
        outliers = density_outliers(x[1:])
    m = cosines(repaired(tower, nine, outliers, keep=not of_sfp))
    s9, s4 = shares(m), shares(cosines(four))
    y = s9 @ repaired(tower, x[1:], outliers, keep=not of_sfp)
    alike = affinity_map(cut(m) if of_sfp else m)

    def attended(tokens: torch.Tensor, names: str) -> torch.Tensor:
        query, key, value = projected(tower.last, tokens)
        sides = {"q": query, "k": key}
        root = key.shape[-1] ** 0.5
        maps = [(sides[n] @ sides[n].transpose(-1, -2) / root).softmax(dim=-1) for n in names]
        total = alike + sum(maps)
        return out(tower.last, total / (1 + len(names)) @ value)

    first = s4 @ (attended(y, "kq" if of_sfp else "k") + 0.3 * x[0])
    summed = sum(layers[layer_of_12(layer, depth)] for layer in range(4, 11))
    assert isinstance(summed, torch.Tensor)
    second = s4 @ (attended(summed[1:], "" if of_sfp else "k") + 0.3 * summed[0])
    return first + second


def without_sinks(tower: Tower, x: torch.Tensor, channels: Sequence[int]) -> torch.Tensor:
    """RF-CLIP's denoising of (1 + N, width), the CLS token untouched."""
    patches, result = x[1:], x.clone()
    for index, patch in enumerate(patches):
        shifted = patch - patch.min()
        share = shifted / max(float(shifted.sum()), 1e-8)
        if max((float(share[c]) for c in channels), default=0.0) > 5 / len(patch):
            mean = patches[tower.around(index)].sum(dim=0) / 9
            result[1 + index] = 0.6 * patch + 0.4 * mean
    return result


def mean_of_all(tower: Tower, x: torch.Tensor, channels: Sequence[int]) -> torch.Tensor:
    """RF-CLIP's: first block's input (1 + N, width) -> input of ln_post (N, width)."""
    layers, maps = [], []

    def own_map(block: Any, tokens: torch.Tensor) -> torch.Tensor:
        _, key, _ = projected(block, tokens)
        whole = (key @ key.transpose(-1, -2) / key.shape[-1] ** 0.5).softmax(dim=-1)
        return whole[:, 1:, 1:]

    for block in tower.blocks:
        if block is not tower.last:
            maps.append(own_map(block, x))
        before, x = x, without_sinks(tower, block(x[None])[0], channels)
        layers.append(x)
    g = torch.stack(layers).mean(dim=0)
    s = cut(cosines(g[1:]))

    def step(y: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([y[:1], s @ y[1:]])
        weights = torch.stack([*maps, own_map(tower.last, tokens)]).mean(dim=0)
        _, _, value = projected(tower.last, tokens)
        return out(tower.last, weights @ value[:, 1:])

    return (step(before) + step(g)) / 2


def read_out(
    name: str,
    blocks: Sequence[Any],
    x: torch.Tensor,
    grid_hw: tuple[int, int],
    sinks: Sequence[int],
) -> torch.Tensor:
    """Read a window out by a preset: (1 + N, width) -> (N, width)."""
    tower = Tower(list(blocks), grid_hw)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "scclip": lambda: middle(tower, x, of_sfp=False),
        "sfp": lambda: middle(tower, x, of_sfp=True),
        "rfclip": lambda: mean_of_all(tower, x, sinks),
    }
    return ways[name]()
