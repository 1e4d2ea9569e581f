"""Check the words of labels by their text embeddings: too near, or hardly known."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import torch

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

#: Words -> (Q, D) embeddings of length 1.
Embed = Callable[[Sequence[str]], torch.Tensor]


@dataclass(frozen=True)
class NearWords:
    """A word of one label that lies near a word of another.

    Attributes:
        labels: names of the two labels, in the order of the vocabulary.
        words: the word of each.
        cosine: cosine of their embeddings, in [-1, 1].
    """

    labels: tuple[str, str]
    words: tuple[str, str]
    cosine: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"labels": [*self.labels], "words": [*self.words], "cosine": round(self.cosine, 4)}


@dataclass(frozen=True)
class UnknownWord:
    """A word that the model hardly knows.

    Attributes:
        label: name of its label.
        word: the word.
        cosine: mean cosine with `MADE_UP_WORDS`, in [-1, 1].
    """

    label: str
    word: str
    cosine: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"label": self.label, "word": self.word, "cosine": round(self.cosine, 4)}


@dataclass(frozen=True)
class VocabularyCheck:
    """The findings on the words of labels.

    Attributes:
        near: pairs of words of different labels that lie too near each other, the nearest first and
            `MOST_NEAR` at most.
        unknown: words that the model hardly knows, those nearest to made-up words first.
        near_from: cosine from which two words are too near.
        unknown_from: mean cosine with made-up words from which a word counts as hardly known; None
            where the model embeds made-up words like others, so that it cannot be told.
    """

    near: tuple[NearWords, ...]
    unknown: tuple[UnknownWord, ...]
    near_from: float
    unknown_from: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the findings as JSON."""
        return {
            "near": [each.to_json() for each in self.near],
            "unknown": [each.to_json() for each in self.unknown],
            "near_from": round(self.near_from, 4),
            "unknown_from": None if self.unknown_from is None else round(self.unknown_from, 4),
        }


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
        labels: the labels with their prompts.
        reference: two or more common words of different meanings, such as the model's contrast
            words.

    Raises:
        ValueError: fewer than two different reference words.
    """
    common = embed(tuple(dict.fromkeys(reference)))
    if len(common) < 2:
        raise ValueError(f"Expected argument `reference` to hold two words, but got {reference!r}.")
    made_up = embed(MADE_UP_WORDS)
    places = [
        (label.name, word)
        for label in labels
        if not label.background
        for word in dict.fromkeys(label.prompts)
    ]
    words = embed([word for _, word in places]) if places else common[:0]
    near_from = (1 + float(_between(common).max())) / 2
    unknown_from = _unknown_from(common, made_up)
    return VocabularyCheck(
        tuple(_near(places, words, near_from)),
        () if unknown_from is None else tuple(_unknown(places, words @ made_up.T, unknown_from)),
        near_from,
        unknown_from,
    )


def _near(
    places: Sequence[tuple[str, str]], words: torch.Tensor, near_from: float
) -> list[NearWords]:
    cosines = (words @ words.T).tolist()
    found = (
        NearWords((one[0], two[0]), (one[1], two[1]), min(1.0, cosines[i][j]))
        for (i, one), (j, two) in combinations(enumerate(places), 2)
        if one[0] != two[0] and (cosines[i][j] >= near_from or one[1] == two[1])
    )
    return heapq.nlargest(MOST_NEAR, found, key=lambda each: each.cosine)


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


def _unknown_from(common: torch.Tensor, made_up: torch.Tensor) -> float | None:
    """Return the limit between common and made-up words; None where they overlap."""
    known = float((common @ made_up.T).mean(dim=1).max())
    count = len(made_up)
    unknown = float(_between(made_up).reshape(count, count - 1).mean(dim=1).min())
    return (known + unknown) / 2 if unknown > known else None


def _between(words: torch.Tensor) -> torch.Tensor:
    """Return the cosines of each word with each other one: (Q * (Q - 1),)."""
    return (words @ words.T)[~torch.eye(len(words), dtype=torch.bool)]
