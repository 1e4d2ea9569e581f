"""Synonyms: join the scores of a label's prompts into one, weighted by what the picture shows."""

from __future__ import annotations

from dataclasses import replace

import torch

from clearclip_core.segmentation.scores import Scores
from clearclip_core.vocabulary import Vocabulary


def join_synonyms(scores: Scores) -> Scores:
    """Join the prompts of each label into one query, by a weighted log-sum-exp of their logits.

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

    Returns:
        Scores whose vocabulary has the first prompt alone of each label that was joined.
    """
    owners = torch.tensor(scores.vocabulary.query_labels)
    queries = scores.vocabulary.queries
    rows, labels = [], []
    for index, label in enumerate(scores.vocabulary.labels):
        own = scores.cosines[(owners == index).to(scores.cosines.device)]
        if label.background or len(label.prompts) == 1:
            rows.append(own)
            labels.append(label)
        else:
            rows.append(_joined(own, scores.temperature))
            labels.append(replace(label, prompts=label.prompts[:1]))
    rows.append(scores.cosines[(owners < 0).to(scores.cosines.device)])
    prompts = {prompt for label in labels for prompt in label.prompts}
    contrast = tuple(
        query
        for query, owner in zip(queries, owners.tolist(), strict=True)
        if owner < 0 or (scores.vocabulary.labels[owner].background and query not in prompts)
    )
    vocabulary = Vocabulary(tuple(labels), contrast)
    return replace(scores, cosines=torch.cat(rows), vocabulary=vocabulary)


def _joined(cosines: torch.Tensor, temperature: float) -> torch.Tensor:
    """Join (Q, h, w) cosines of a label's prompts to (1, h, w)."""
    logits = cosines * temperature
    weights = logits.flatten(1).mean(dim=1).log_softmax(dim=0)
    return (logits + weights[:, None, None]).logsumexp(dim=0, keepdim=True) / temperature
