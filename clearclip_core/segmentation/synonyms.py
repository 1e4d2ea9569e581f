"""Synonyms: join the scores of a label's prompts into one, weighted by what the picture shows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch

from clearclip_core.segmentation.scores import Scores
from clearclip_core.vocabulary import Label, Vocabulary


def join_synonyms(scores: Scores, names: Collection[str] | None = None) -> Scores:
    """Join the prompts of labels into one query each, by a weighted log-sum-exp of their logits.

    With the logits z_i of a label's prompts at a patch and weights w_i that sum to 1, the label's
    logit there is ``log Σ w_i exp(z_i)``. The weight of a prompt is the softmax, over the label's
    prompts, of its mean logit over the picture: of several words for a label, the one that fits
    the picture counts most, and it counts everywhere in it.

    VIP (github.com/MiSsU-HH/VIP) weighs the logits themselves, so that a label with many words
    gains. Here the weights stand before the exponentials: a label whose words all score alike has
    their score, however many they are. Synonyms no longer take probability from one another, so
    probabilities are larger than with the best prompt alone.

    A background label, whose prompts are alternatives that have little in common, and contrast
    words stay as they are.

    Args:
        scores: scores of an image, one query for each prompt.
        names: names of the labels that are joined; None for all.

    Returns:
        Scores whose vocabulary has the first prompt alone of each label that was joined.
    """
    means = scores.cosines.flatten(1).mean(dim=1)
    cosines, vocabulary = join_queries(
        scores.cosines, means, scores.vocabulary, scores.temperature, names
    )
    return replace(scores, cosines=cosines, vocabulary=vocabulary)


def join_queries(
    cosines: torch.Tensor,
    means: torch.Tensor,
    vocabulary: Vocabulary,
    temperature: float,
    names: Collection[str] | None = None,
) -> tuple[torch.Tensor, Vocabulary]:
    """Join the cosines of labels' prompts as `join_synonyms` does, of any patches of a picture.

    Args:
        cosines: (Q, ...), of the queries at some patches.
        means: (Q,), mean cosine of each query over the picture.
        vocabulary: the vocabulary with these Q queries.
        temperature: factor on the cosines.
        names: names of the labels that are joined; None for all.

    Returns:
        (Q', ...) and the vocabulary with these Q' queries.
    """
    owners = torch.tensor(vocabulary.query_labels, device=cosines.device)
    rows, labels = [], []
    for index, label in enumerate(vocabulary.labels):
        own = owners == index
        if is_joinable(label) and (names is None or label.name in names):
            logits, mean = temperature * cosines[own], temperature * means[own]
            rows.append(log_mean_exp(logits, mean)[None] / temperature)
            labels.append(replace(label, prompts=label.prompts[:1]))
        else:
            rows.append(cosines[own])
            labels.append(label)
    rows.append(cosines[owners < 0])
    prompts = {prompt for label in labels for prompt in label.prompts}
    contrast = tuple(
        query
        for query, owner in zip(vocabulary.queries, owners.tolist(), strict=True)
        if owner < 0 or (vocabulary.labels[owner].background and query not in prompts)
    )
    return torch.cat(rows), replace(vocabulary, labels=tuple(labels), contrast=contrast)


def is_joinable(label: Label) -> bool:
    """Return whether a label has several prompts that mean one thing."""
    return len(label.prompts) > 1 and not label.background


def log_mean_exp(logits: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Compute ``log Σ w_i exp(z_i)`` with ``w`` the softmax of the prompts' mean logits.

    Args:
        logits: (n, ...) z of a label's prompts.
        means: (n,) their means over the picture.

    Returns:
        (...).

    >>> log_mean_exp(torch.tensor([[1.0], [1.0]]), torch.tensor([0.0, 3.0]))
    tensor([1.])
    """
    weights = means.log_softmax(dim=0).reshape(-1, *[1] * (logits.ndim - 1))
    return (logits + weights).logsumexp(dim=0)
