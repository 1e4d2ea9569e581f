"""Check the words of labels: too near each other, hardly known, or swallowed by another label's."""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.segmentation.scores import Scores
from clearclip_core.vocabulary import Label

#: Words that no text contains. A word that a model does not know is embedded as they are.
MADE_UP_WORDS: Final = (
    "blarnog",
    "drivvask",
    "fremtip",
    "gloptun",
    "plimorth",
    "quonzel",
    "snerfad",
    "tarkwib",
    "wexolin",
    "zandupe",
)

#: Pairs of near words that are told, the nearest: numbered labels have a million of them.
MOST_NEAR: Final = 100

#: The second label loses narrowly where it has at least this share of the winner's probability.
NARROW: Final = 1 / 3

#: A label is swallowed where another one takes at least this share of its places narrowly.
SWALLOWED_FROM: Final = 0.5

#: Places of a label are too few to say anything below this share of all.
FEWEST: Final = 0.002

#: Words -> (Q, D) embeddings of length 1.
Embed = Callable[[Sequence[str]], torch.Tensor]


@dataclass(frozen=True)
class NearWords:
    """A word of one label that lies near a word of another."""

    labels: tuple[str, str]  # names of the two labels, in the order of the vocabulary
    words: tuple[str, str]
    cosine: float  # cosine of their embeddings, in [-1, 1]


@dataclass(frozen=True)
class UnknownWord:
    """A word that the model hardly knows."""

    label: str
    word: str
    cosine: float  # mean cosine with `MADE_UP_WORDS`, in [-1, 1]


@dataclass(frozen=True)
class VocabularyCheck:
    """The findings on the words of labels."""

    #: Pairs of words of different labels that lie too near each other, the nearest first and
    #: `MOST_NEAR` at most.
    near: tuple[NearWords, ...]
    #: Words that the model hardly knows, those nearest to made-up words first; none where the model
    #: embeds made-up words like others, so that it cannot be told.
    unknown: tuple[UnknownWord, ...]


def check_vocabulary(
    embed: Embed, labels: Sequence[Label], reference: Sequence[str]
) -> VocabularyCheck:
    """Find words of different labels that are too near, and words that the model hardly knows.

    Cosines of text embeddings mean something else in each model, so both limits are measured on
    it. Two words are too near from half way between the nearest two reference words and 1. A word
    is hardly known from half way between the reference words and made-up words, by the mean cosine
    with made-up words. A background label, which stands for no word, is left out.

    Args:
        embed: words -> (Q, D) embeddings of length 1.
        labels: the labels, whose prompts are checked.
        reference: two or more common words of different meanings, such as the model's contrast
            words.
    """
    common, made_up = embed(tuple(dict.fromkeys(reference))), embed(MADE_UP_WORDS)
    places = [
        (label.name, word)
        for label in labels
        if not label.background
        for word in dict.fromkeys(label.prompts)
    ]
    words = embed([word for _, word in places]) if places else common[:0]
    near_from = (1 + float(_between(common).max())) / 2
    return VocabularyCheck(
        tuple(_near(places, words, near_from)),
        tuple(_unknown(places, words @ made_up.T, _unknown_from(common, made_up))),
    )


def _near(
    places: Sequence[tuple[str, str]], words: torch.Tensor, near_from: float
) -> list[NearWords]:
    """Return the nearest pairs of words of different labels.

    Args:
        places: label and word of each embedding.
        words: (Q, D) embeddings of length 1.
        near_from: the cosine from which words are too near; equal words are in any case.
    """
    cosines = (words @ words.T).tolist()
    found = _near_pairs(places, cosines, near_from)
    return heapq.nlargest(MOST_NEAR, found, key=lambda each: each.cosine)


def _near_pairs(
    places: Sequence[tuple[str, str]], cosines: Sequence[Sequence[float]], near_from: float
) -> Iterator[NearWords]:
    for (i, (label, word)), (j, (other_label, other)) in combinations(enumerate(places), 2):
        if label == other_label:
            continue
        cosine = cosines[i][j]
        if cosine >= near_from or word == other:
            yield NearWords((label, other_label), (word, other), min(1.0, cosine))


def _unknown(
    places: Sequence[tuple[str, str]], cosines: torch.Tensor, unknown_from: float
) -> list[UnknownWord]:
    means = cosines.mean(dim=1).tolist()
    found = [
        UnknownWord(label, word, mean)
        for (label, word), mean in zip(places, means, strict=True)
        if mean >= unknown_from
    ]
    return sorted(found, key=lambda each: -each.cosine)


def _unknown_from(common: torch.Tensor, made_up: torch.Tensor) -> float:
    """Return the limit between common and made-up words; infinite where they overlap."""
    known = float((common @ made_up.T).mean(dim=1).max())
    count = len(made_up)
    unknown = float(_between(made_up).reshape(count, count - 1).mean(dim=1).min())
    return (known + unknown) / 2 if unknown > known else math.inf


def _between(words: torch.Tensor) -> torch.Tensor:
    """Return the cosines of each word with each other one: (Q * (Q - 1),)."""
    return (words @ words.T)[~torch.eye(len(words), dtype=torch.bool)]


@dataclass(frozen=True)
class Swallowed:
    """A label that loses its places to another one."""

    label: str
    by: str
    #: Of the places that the label would have without the other one, the share that it loses to it
    #: narrowly, in [0, 1].
    share: float


class Swallowing:
    """Counts which label wins and which one comes second, over images.

    A place is a patch of a window; no mask is drawn. Thresholds do not count.

    Args:
        labels: names of the labels, in the order of the vocabulary.
    """

    def __init__(self, labels: Iterable[str]) -> None:
        self.labels = tuple(labels)
        count = len(self.labels)
        # Rows: the winner; columns: the second. The last index is that of no label.
        self._pairs: npt.NDArray[np.int64] = np.zeros((count + 1, count + 1), np.int64)
        self._narrow = np.zeros_like(self._pairs)

    def add(self, scores: Scores) -> None:
        """Add the scores of these labels on an image."""
        logits = scores.cosines.flatten(start_dim=1).float() * scores.temperature
        probabilities = logits.softmax(dim=0).cpu().numpy()
        count = len(self.labels)
        owners = np.asarray(scores.vocabulary.query_labels) % (count + 1)  # -1 becomes the last
        best = np.zeros((count + 1, probabilities.shape[1]), np.float32)
        np.maximum.at(best, owners, probabilities)
        second, first = np.argsort(best, axis=0)[-2:]
        where = np.arange(best.shape[1])
        narrow = best[second, where] >= NARROW * best[first, where]
        np.add.at(self._pairs, (first, second), 1)
        np.add.at(self._narrow, (first[narrow], second[narrow]), 1)

    def found(self) -> list[Swallowed]:
        """Return the labels that are swallowed, the largest share first."""
        own = self._pairs.sum(axis=1)
        fewest = max(1, math.ceil(FEWEST * own.sum()))
        would_have = (own + self._pairs)[:-1, :-1]  # rows: the winner; columns: the loser
        shares = self._narrow[:-1, :-1] / np.maximum(1, would_have)
        np.fill_diagonal(shares, 0)
        losers, winners = np.nonzero(((would_have >= fewest) & (shares >= SWALLOWED_FROM)).T)
        found = [
            Swallowed(self.labels[loser], self.labels[winner], float(shares[winner, loser]))
            for loser, winner in zip(losers.tolist(), winners.tolist(), strict=True)
        ]
        return sorted(found, key=lambda each: -each.share)

    def shares(self) -> dict[str, float]:
        """Return the share of the places that each label wins, in [0, 1]."""
        own = self._pairs.sum(axis=1)
        return dict(zip(self.labels, (own[:-1] / max(1, own.sum())).tolist(), strict=True))
