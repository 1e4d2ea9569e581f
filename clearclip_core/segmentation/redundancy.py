"""CLIP Surgery: subtract from the similarities what all classes have in common."""

from __future__ import annotations

import torch

#: CLIP Surgery multiplies the CLS token's cosines by this before its softmax over classes.
CLASS_TEMPERATURE = 2.0


def without_redundancy(cosines: torch.Tensor, cls_cosines: torch.Tensor) -> torch.Tensor:
    """Subtract what the similarities of all classes have in common (CLIP Surgery).

    With ``s = softmax(2 · cls_cosines)`` over the classes and ``w = s / mean(s)``, the similarity
    of class c is ``w_c · cosine_c`` less the mean of that over all classes (Li et al., "CLIP
    Surgery for Better Explainability with Enhancement in Open-Vocabulary Tasks", 2023). Each
    window has weights of its own. A single class keeps its plain cosine.

    Every query counts as a class: each synonym of a label, and each contrast word.

    Args:
        cosines: (windows, h, w, Q), of patches and queries.
        cls_cosines: (windows, Q), of the windows' CLS features and queries.

    Returns:
        (windows, h, w, Q) similarities, whose mean over the queries is 0 where there are several.

    >>> two = torch.tensor([0.3, 0.1]).reshape(1, 1, 1, 2)
    >>> without_redundancy(two, torch.tensor([[0.2, 0.2]])).flatten()
    tensor([ 0.1000, -0.1000])
    """
    if cosines.shape[-1] == 1:
        return cosines
    shares = (CLASS_TEMPERATURE * cls_cosines).softmax(dim=-1)
    weights = shares / shares.mean(dim=-1, keepdim=True)  # (windows, Q)
    weighted = cosines * weights[:, None, None]
    return weighted - weighted.mean(dim=-1, keepdim=True)
