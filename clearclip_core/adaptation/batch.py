"""Training examples in terms of a vocabulary: text logits and observations of their patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearclip_core.adaptation.adaptation import group_names, query_names
from clearclip_core.adaptation.examples import HALF_PATCHES, UNLABELED, Example, Float32Array
from clearclip_core.segmentation.scores import TEMPERATURE
from clearclip_core.vocabulary import Vocabulary

#: Exponent of a label's area in its weight. At 1, frequent labels outweigh rare ones; at 1/2, the
#: area of a small label grows too large beside the area without a label.
_AREA_POWER = 0.75

#: The logit of a label that could not be chosen.
_ABSENT = np.float32(-1e4)


@dataclass(frozen=True, eq=False)
class Batch:
    """A training example for a vocabulary of G groups of queries: the labels, and contrast words.

    Attributes:
        patches: (N, D) float32, features of the sampled patches.
        text: (N, G) float32, text logits: the best query of each group.
        truth: (N, G) float32, weight of each patch as an observation of each group; the weights
            of an image sum to 1.
        areas: (N, G) float32, area of each group in each patch, in patches of the image.
        weights: (N,) float32, number of patches of the image that each patch stands for, without
            the area of labels that the vocabulary lacks.
    """

    patches: Float32Array
    text: Float32Array
    truth: Float32Array
    areas: Float32Array
    weights: Float32Array

    @classmethod
    def of(
        cls,
        example: Example,
        embeddings: Float32Array,
        vocabulary: Vocabulary,
        limit: int,
        shared: int,
    ) -> Batch:
        """Make the batch of an example.

        Args:
            example: the training example.
            embeddings: (Q, D) float32 embeddings of the vocabulary's queries.
            vocabulary: the groups.
            limit: number of patches at most.
            shared: number of examples of the image, which share its weight.
        """
        count = len(example.patches)
        kept = min(count, max(1, limit))
        sampled = ((np.arange(kept) + 0.5) * count / kept).astype(np.intp)
        patches = example.patches[sampled].astype(np.float32)
        weights = example.weights[sampled] * np.float32(count / kept)
        names, owners = group_names(vocabulary), query_names(vocabulary)
        removed = [i for i, name in enumerate(example.names) if name not in {*names, UNLABELED}]
        unknown = example.coverage[sampled][:, removed].astype(np.float32).sum(axis=1)
        logits = np.float32(TEMPERATURE) * (patches @ embeddings.T)
        text = np.full((kept, len(names)), _ABSENT, np.float32)
        areas = np.zeros_like(text)
        for group, name in enumerate(names):
            queries = [query for query, owner in enumerate(owners) if owner == name]
            # A label that was added after the correction could not be chosen.
            if name == UNLABELED or name in example.known:
                text[:, group] = logits[:, queries].max(axis=1)
            if name in example.names:
                areas[:, group] = example.coverage[sampled, example.names.index(name)] * weights
        # The area of removed labels is no observation, nor a patch without any present label.
        weights = weights * (1 - unknown).clip(0) * (text > _ABSENT).any(axis=1)
        truth, share = _balanced(areas), np.float32(1 / shared)
        return cls(patches, text, truth * share, areas * share, weights.astype(np.float32) * share)


def _balanced(areas: Float32Array) -> Float32Array:
    """Return (N, G) weights of an image that sum to 1, from its areas in patches.

    The weight of a group grows less than in proportion to its area, see `_AREA_POWER`.
    """
    totals = areas.sum(axis=0)
    shares = totals**_AREA_POWER * totals / (totals + HALF_PATCHES)
    if not shares.any():
        return areas
    factors = shares / np.where(totals > 0, totals, 1) / shares.sum()
    balanced: Float32Array = areas * factors.astype(np.float32)
    return balanced
