"""RF-CLIP's text side: words that follow what a window and a picture show.

Words whose embeddings are alike form groups. In each group, the word that fits the window best is
drawn towards the window's patches that fit it best; then all words get the presence prior. The
numbers are tuned for each benchmark, so this belongs to evaluations; a project has the prior alone
(`clearclip_core.segmentation.presence`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import fcluster, linkage

from clearclip_core.segmentation.dense_features import DenseFeatures
from clearclip_core.segmentation.scores import Scores
from clearclip_core.vocabulary import Vocabulary

#: Patches of a window that a word is drawn towards.
_PATCHES = 2


@dataclass(frozen=True)
class TextSide:
    """Numbers of the text side (RF-CLIP, AAAI 2026, released settings).

    Attributes:
        presence: weight w of the presence prior, in [0, 1).
        mixed: share m of the patches in a word that is drawn towards them, in [0, 1].
        distance: cosine distance h up to which all words of a group are alike.
        by_window: the prior is of each window's CLS feature, not of the whole picture's.
    """

    presence: float
    mixed: float
    distance: float
    by_window: bool = False


def group_words(embeddings: torch.Tensor, distance: float) -> npt.NDArray[np.intp]:
    """Group words by complete linkage of their cosine distances.

    Args:
        embeddings: (Q, D) unit text embeddings.
        distance: largest distance within a group.

    Returns:
        (Q,) number of each word's group.
    """
    if len(embeddings) == 1:
        return np.zeros(1, np.intp)
    unit = embeddings.double().cpu().numpy()
    tree = linkage(unit, "complete", metric="cosine")
    groups: npt.NDArray[np.intp] = fcluster(tree, distance, "distance").astype(np.intp)
    return groups


def score_with_text_side(
    features: DenseFeatures,
    picture_cls: torch.Tensor | None,
    embeddings: torch.Tensor,
    vocabulary: Vocabulary,
    groups: npt.NDArray[np.intp],
    side: TextSide,
) -> Scores:
    """Score features against words that follow each window.

    With unit patch features f, unit text embeddings t, the window's CLS feature c and that of the
    picture g: in each group, the word with the largest ``cos(c, t)`` becomes
    ``unit((1 - m) t + m unit(mean of the two f that are nearest to t))``. With the words t' the
    scores are ``(1 - w) cos(f, t') + w cos(g, t)``.

    Args:
        features: of one image, with CLS features.
        picture_cls: (D,) unit CLS feature of the whole picture, encoded as one window; None where
            the prior is by window.
        embeddings: (Q, D).
        vocabulary: the vocabulary with these Q queries.
        groups: (Q,) from `group_words`.
        side: the numbers.

    Raises:
        ValueError: features without CLS features.
    """
    if features.cls is None:
        raise ValueError("Expected features with CLS features, but got None.")
    dtype = torch.promote_types(features.patches.dtype, torch.float32)
    patches, cls = features.patches.to(dtype), features.cls.to(dtype)
    words = embeddings.to(patches)  # (Q, D)
    cosines = []
    for window, own_cls in zip(patches, cls, strict=True):
        own = _drawn(words, window.flatten(0, 1), own_cls, groups, side.mixed)
        prior = words @ (own_cls if picture_cls is None else picture_cls.to(words))
        cosines.append((1 - side.presence) * (window @ own.T) + side.presence * prior)
    mosaic = features.plan.mosaic(torch.stack(cosines).permute(0, 3, 1, 2))
    return Scores(mosaic.contiguous(), features.plan, vocabulary)


def _drawn(
    words: torch.Tensor,
    patches: torch.Tensor,
    cls: torch.Tensor,
    groups: npt.NDArray[np.intp],
    mixed: float,
) -> torch.Tensor:
    """Draw the best word of each group towards the patches (N, D) that fit it: (Q, D)."""
    fits = (words @ cls).cpu().numpy()
    best = [rows[fits[rows].argmax()] for rows in _members(groups)]
    chosen = words[best]  # (groups, D)
    nearest = (chosen @ patches.T).topk(min(_PATCHES, len(patches)), dim=1).indices
    shown = F.normalize(patches[nearest].mean(dim=1), dim=-1)
    drawn = words.clone()
    drawn[best] = F.normalize((1 - mixed) * chosen + mixed * shown, dim=-1)
    return drawn


def _members(groups: npt.NDArray[np.intp]) -> list[npt.NDArray[np.intp]]:
    return [np.flatnonzero(groups == number) for number in np.unique(groups)]
