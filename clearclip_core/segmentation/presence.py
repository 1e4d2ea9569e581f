"""Presence prior: let a label count for more where the whole image shows it.

A label that is absent from an image wins pixels where its word lies near what they show. The CLS
feature says what the image shows as a whole, and gives each query one number. With weight w, unit
patch features f, unit text embeddings t and the image's unit CLS feature g, the score of a query is

    (1 - w) · cos(f, t) + w · cos(g, t)

(RF-CLIP, arXiv 2511.16170, last step). This equals the cosines' numerator of features that are all
shifted by one constant, ``(1 - w) · f + w · g``. Here the text side carries it: embeddings are
scaled, and each query gets an offset. So features stay as they are, in caches, for prompts and in
training examples.
"""

from __future__ import annotations

import math

import torch


def check_presence(weight: float) -> None:
    """Check the weight of a presence prior.

    Raises:
        ValueError: it is not in [0, 1).
    """
    if not (math.isfinite(weight) and 0 <= weight < 1):
        raise ValueError(
            f"Expected argument `presence` to be at least 0 and below 1, but got {weight}."
        )


def apply_presence(
    embeddings: torch.Tensor, image_cls: torch.Tensor, weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put a presence prior into text embeddings.

    Args:
        embeddings: (Q, D) unit text embeddings.
        image_cls: (D,), unit CLS feature of the image, see ``DenseFeatures.image_cls``.
        weight: w in [0, 1).

    Returns:
        (Q, D) embeddings ``(1 - w) · t``, and (Q,) offsets ``w · cos(g, t)``.

    >>> embeddings, offsets = apply_presence(torch.eye(2), torch.tensor([0.6, 0.8]), 0.5)
    >>> embeddings.tolist(), offsets.tolist()
    ([[0.5, 0.0], [0.0, 0.5]], [0.30000001192092896, 0.4000000059604645])
    """
    return (1 - weight) * embeddings, weight * (embeddings @ image_cls.to(embeddings))
