"""Position embeddings for another patch grid than the trained one."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from clearclip_core.clip.methods import Resize


def resize_position_embedding(
    embedding: torch.Tensor,
    trained_grid_hw: tuple[int, int],
    grid_hw: tuple[int, int],
    how: Resize = "factor",
) -> torch.Tensor:
    """Resize position embeddings to another patch grid.

    ============ ================================================================================
    ``factor``   as DINO does (the paper's released settings): bicubic without antialiasing, with
                 the factors ``(h + 0.1) / √N`` and ``(w + 0.1) / √N``; unchanged where the number
                 of tokens is the trained one
    ``size``     as GEM does: bicubic with antialiasing, by size
    ``bilinear`` as CLIP Surgery does: bilinear without antialiasing, by size, corners not aligned
    ============ ================================================================================

    Resized by size, the embeddings are unchanged where the grid is the trained one.

    Args:
        embedding: (1 + N, width), CLS first.
        trained_grid_hw: the patch grid of the N trained positions.
        grid_hw: the new patch grid (h, w).
        how: one of the names above.

    Returns:
        (1 + h*w, width), in the dtype of `embedding`.
    """
    same_count = grid_hw[0] * grid_hw[1] == trained_grid_hw[0] * trained_grid_hw[1]
    if tuple(grid_hw) == tuple(trained_grid_hw) if how != "factor" else same_count:
        return embedding
    cls, patches = embedding[:1], embedding[1:]
    precise = patches.to(torch.promote_types(patches.dtype, torch.float32))
    grid = precise.T.reshape(1, -1, *trained_grid_hw)  # (1, width, √N, √N)
    if how == "bilinear":
        resized = F.interpolate(grid, grid_hw, mode="bilinear", align_corners=False)
    elif how == "size":
        resized = F.interpolate(grid, grid_hw, mode="bicubic", antialias=True)
    else:
        scale = tuple((n + 0.1) / m for n, m in zip(grid_hw, trained_grid_hw, strict=True))
        resized = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
    assert resized.shape[2:] == grid_hw, (resized.shape, grid_hw)
    return torch.cat([cls, resized.flatten(2)[0].T.to(embedding.dtype)])
