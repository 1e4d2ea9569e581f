"""Choose images that differ from each other, by their features."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from clearclip_core.segmentation.windows import DenseFeatures


def image_vector(features: DenseFeatures) -> torch.Tensor:
    """Return (D,) float32 of length 1 on the CPU: the mean of an image's patch features."""
    mean = features.patches.float().flatten(end_dim=-2).mean(dim=0)
    return F.normalize(mean, dim=0).cpu()


def k_center(vectors: torch.Tensor, count: int) -> list[int]:
    """Choose vectors such that every other one is near a chosen one (greedy k-center).

    The first is the one nearest to the mean; each further one is the farthest from all that are
    chosen (Gonzalez, 1985, "Clustering to minimize the maximum intercluster distance").

    Args:
        vectors: (N, D) float.
        count: number of vectors to choose, at least 0.

    Returns:
        Indices in the order of the choice: `count`, or N where there are fewer. Of equal distances
        the first index counts.

    >>> k_center(torch.tensor([[0.0], [1.0], [1.1], [9.0]]), 3)
    [2, 3, 0]
    """
    chosen: list[int] = []
    if len(vectors) == 0 or count < 1:
        return chosen
    nearest = (vectors - vectors.mean(dim=0)).norm(dim=1)
    farthest = int(nearest.argmin())
    nearest = torch.full_like(nearest, torch.inf)
    for _ in range(min(count, len(vectors))):
        chosen.append(farthest)
        nearest = torch.minimum(nearest, (vectors - vectors[farthest]).norm(dim=1))
        nearest[farthest] = -1.0  # equal vectors have no distance, and none is chosen twice
        farthest = int(nearest.argmax())
    return chosen
