"""Training examples in terms of a vocabulary: text logits, and what was painted on each patch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax

from clearclip_core.adaptation.adaptation import Adaptation, group_names, query_names
from clearclip_core.adaptation.examples import UNLABELED, Example, Float32Array
from clearclip_core.segmentation.scores import TEMPERATURE, log_mean_exp
from clearclip_core.vocabulary import Vocabulary

#: The logit of a label that could not be chosen.
_ABSENT = np.float32(-1e4)


@dataclass(frozen=True, eq=False)
class Batch:
    """A training example for a vocabulary of G groups of queries: the labels, and contrast words.

    Attributes:
        example: digest of the training example.
        annotator: opaque id of who made it; "" where nobody knows.
        patches: (N, D) float32, features of the sampled patches.
        text: (N, G) float32, text logits: the best query of each group.
        painted: (N, G) float32 in [0, 1], share of each patch that each group's label covers.
        covered: (N,) float32 in [0, 1], share of each patch that any label covers, also one that
            the vocabulary lacks.
        kept: (N,) float32 in [0, 1], share of each patch whose paint stands as predicted.
        removed: (N, G) float32 in [0, 1], share of each patch where a prediction showed the label
            and the annotator took it away.
        weights: (N,) float32, number of patches of the image that each patch stands for, without
            the area of labels that the vocabulary lacks.
        boxes: (G,) bool, the labels whose paint is of boxes.
    """

    example: str
    annotator: str
    patches: Float32Array
    text: Float32Array
    painted: Float32Array
    covered: Float32Array
    kept: Float32Array
    removed: Float32Array
    weights: Float32Array
    boxes: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls, example: Example, embeddings: Float32Array, vocabulary: Vocabulary, limit: int
    ) -> Batch:
        """Make the batch of an example.

        Args:
            example: the training example.
            embeddings: (Q, D) float32 embeddings of the vocabulary's queries.
            vocabulary: the groups.
            limit: number of patches at most.
        """
        count = len(example.patches)
        sampled_count = min(count, max(1, limit))
        sampled = ((np.arange(sampled_count) + 0.5) * count / sampled_count).astype(np.intp)
        patches = example.patches[sampled].astype(np.float32)
        names = group_names(vocabulary)
        text = text_logits(patches, embeddings, vocabulary, example)
        coverage = example.coverage[sampled].astype(np.float32)
        nothing = np.zeros((len(sampled), 0), np.float32)
        kept, removed = (
            nothing if each is None else each[sampled].astype(np.float32)
            for each in (example.kept, example.removed)
        )
        lost = [i for i, name in enumerate(example.names) if name not in {*names, UNLABELED}]
        known = (1 - coverage[:, lost].sum(axis=1)).clip(0) * (text > _ABSENT).any(axis=1)
        return cls(
            example.digest,
            example.annotator,
            patches,
            text,
            _columns(coverage, example.names, names),
            _covered(coverage, example.names),
            kept.sum(axis=1).clip(0, 1),
            _columns(removed, example.removed_names, names),
            example.weights[sampled] * np.float32(count / sampled_count) * known,
            np.array([name in example.boxes for name in names]),
        )

    @cached_property
    def words(self) -> Float32Array:
        """(N, G) float32 probabilities of the groups by the words alone."""
        shares: Float32Array = softmax(self.text, axis=1)
        return shares

    @cached_property
    def predicted(self) -> npt.NDArray[np.intp]:
        """(N,) group of each patch by the words alone."""
        groups: npt.NDArray[np.intp] = self.text.argmax(axis=1)
        return groups


def text_logits(
    patches: Float32Array,
    embeddings: Float32Array,
    vocabulary: Vocabulary,
    example: Example,
    joined: Collection[str] = (),
) -> Float32Array:
    """Compute the logits of groups at patches of an example, with its presence prior.

    A group's best query counts, or all of them together where its label is joined, see
    `clearclip_core.segmentation.scores`. A label that was added after the correction could not be
    chosen and has no chance.

    Args:
        patches: (N, D) float32 features.
        embeddings: (Q, D) float32 embeddings of the vocabulary's queries.
        vocabulary: G groups of queries.
        example: the training example.
        joined: names of the labels whose queries are joined.

    Returns:
        (N, G) float32.
    """
    names, owners = group_names(vocabulary), query_names(vocabulary)
    words, offsets = (term.numpy() for term in example.word_terms(torch.from_numpy(embeddings)))
    logits = np.float32(TEMPERATURE) * (patches @ words.T + offsets)
    means = np.float32(TEMPERATURE) * (words @ example.mean_feature + offsets)
    text = np.full((len(patches), len(names)), _ABSENT, np.float32)
    for group, name in enumerate(names):
        queries = [query for query, owner in enumerate(owners) if owner == name]
        if name != UNLABELED and name not in example.known:
            continue
        if name in joined:
            own, mean = (torch.from_numpy(each[..., queries]) for each in (logits, means))
            text[:, group] = log_mean_exp(own.T, mean).numpy()
        else:
            text[:, group] = logits[:, queries].max(axis=1)
    return text


def added_logits(batch: Batch, adaptation: Adaptation | None, names: Sequence[str]) -> Float32Array:
    """Return (N, G): what an adaptation's directions and offsets add to a batch's logits."""
    added = np.zeros_like(batch.text)
    if adaptation is not None:
        rows = {name: row for row, name in enumerate(adaptation.names)}
        for group, name in enumerate(names):
            if name in rows:
                own = batch.patches @ adaptation.directions[rows[name]]
                own += adaptation.offsets[rows[name]]
                added[:, group] = np.float32(TEMPERATURE) * own
    return added


def _columns(shares: Float32Array, own: tuple[str, ...], names: tuple[str, ...]) -> Float32Array:
    """Put the columns of the labels `own` at the places of the groups; the area of none is left."""
    placed = np.zeros((len(shares), len(names)), np.float32)
    for group, name in enumerate(names):
        if name in own and name != UNLABELED:
            placed[:, group] = shares[:, own.index(name)]
    return placed


def _covered(coverage: Float32Array, names: tuple[str, ...]) -> Float32Array:
    """Return the (N,) share of each patch that any label covers."""
    if UNLABELED not in names:
        return np.ones(len(coverage), np.float32)
    covered: Float32Array = 1 - coverage[:, names.index(UNLABELED)]
    return covered
