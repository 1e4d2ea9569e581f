"""Adaptations that have not learned from the image that they score."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from clearclip_core.adaptation.adaptation import Adaptation, group_names
from clearclip_core.adaptation.cross_validation import CrossValidation
from clearclip_core.adaptation.evidence import count_images, gather_evidence
from clearclip_core.adaptation.examples import Example
from clearclip_core.adaptation.fitting import (
    FEWEST_IMAGES,
    adaptation_of,
    find_set_aside,
    make_batches,
)
from clearclip_core.adaptation.similarity import cluster
from clearclip_core.thread_pools import one_blas_thread
from clearclip_core.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class HeldOutAdaptations:
    """Adaptations by the image that they have not learned from.

    Attributes:
        by_picture: key of an image, see `Example.picture_key` -> the adaptation to the other folds.
        others: the adaptation to all examples, for images that gave none; None where nothing can
            be learned.
    """

    by_picture: Mapping[str, Adaptation] = field(default_factory=dict)
    others: Adaptation | None = None

    def of(self, picture: str) -> Adaptation | None:
        """Return the adaptation for an image, by its key; None: the words alone.

        >>> HeldOutAdaptations().of("a") is None
        True
        """
        return self.by_picture.get(picture, self.others)


def fit_held_out(
    examples: Iterable[Example],
    embed: Callable[[Sequence[str]], torch.Tensor],
    vocabulary: Vocabulary,
    trusted: Collection[str] = (),
) -> HeldOutAdaptations:
    """Fit an adaptation to all folds of the training examples but one, for each fold.

    The folds are those of `adapt`: near-duplicates of an image are held out with it, and paint
    that contradicts the others is set aside. What was learned does not pass a gate: it shall say
    what the other annotations say, not what predictions use. Presence and synonyms are not learned.

    Args:
        examples: one for each correction; those with numbers that are not finite are left out.
        embed: prompts -> (Q, D) unit embeddings, such as `TextEncoder`.
        vocabulary: the labels in use.
        trusted: digests of examples of which nothing is set aside.

    Raises:
        ValueError: examples of another model.
    """
    finite = (example for example in examples if example.is_finite)
    ordered = sorted(finite, key=lambda example: (example.picture_key, example.digest))
    names, clusters = group_names(vocabulary), cluster(ordered)
    if len(np.unique(clusters)) < FEWEST_IMAGES:
        return HeldOutAdaptations()
    with one_blas_thread():
        batches = make_batches(ordered, embed, vocabulary)
        aside = find_set_aside(batches, clusters, names, trusted)
        evidence = gather_evidence(batches, clusters, names, aside)
        learning = count_images(evidence, len(names)) >= FEWEST_IMAGES
        if not learning.any():
            return HeldOutAdaptations()
        validation = CrossValidation(evidence)
        pictures = len({example.picture_key for example in ordered})
        terms = validation.held_out_terms(learning)  # the examples of a fold share theirs
        of_fold = {
            id(each): adaptation_of(each, learning, names, pictures)
            for each in {id(each): each for each in terms}.values()
        }
        held_out = {
            example.picture_key: of_fold[id(each)]
            for example, each in zip(ordered, terms, strict=True)
        }
        others = adaptation_of(validation.all_terms(learning), learning, names, pictures)
    return HeldOutAdaptations(held_out, others)
