"""Check the words of labels by their text embeddings: too near, or hardly known."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.windows import DenseFeatures
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
        cosine: cosine of their embeddings, in [-1, 1].
    """

    labels: tuple[str, str]
    words: tuple[str, str]
    cosine: float


@dataclass(frozen=True)
class UnknownWord:
    """A word that the model hardly knows.

    Attributes:
        cosine: mean cosine with `MADE_UP_WORDS`, in [-1, 1].
    """

    label: str
    word: str
    cosine: float


@dataclass(frozen=True)
class VocabularyCheck:
    """The findings on the words of labels.

    Attributes:
        near: pairs of words of different labels that lie too near each other, the nearest first and
            `MOST_NEAR` at most.
        unknown: words that the model hardly knows, those nearest to made-up words first.
        unknown_from: mean cosine with made-up words from which a word counts as hardly known; None
            where the model embeds made-up words like others, so that it cannot be told.
    """

    near: tuple[NearWords, ...]
    unknown: tuple[UnknownWord, ...]
    near_from: float
    unknown_from: float | None


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


def image_vector(features: DenseFeatures) -> torch.Tensor:
    """Return (D,) float32 of length 1 on the CPU: the mean of an image's patch features."""
    mean = features.patches.float().flatten(end_dim=-2).mean(dim=0)
    return F.normalize(mean, dim=0).cpu()


def k_center(vectors: torch.Tensor, count: int) -> list[int]:
    """Choose vectors such that every other one is near a chosen one (greedy k-center).

    The first is the one nearest to the mean; each further one is the farthest from all that are
    chosen (Gonzalez, 1985, "Clustering to minimize the maximum intercluster distance").

    Args:
        vectors: (N, D) float.
        count: number of vectors to choose, at least 0.

    Returns:
        Indices in the order of the choice: `count`, or N where there are fewer. Of equal distances
        the first index counts.

    >>> k_center(torch.tensor([[0.0], [1.0], [1.1], [9.0]]), 3)
    [2, 3, 0]
    """
    chosen: list[int] = []
    if len(vectors) == 0 or count < 1:
        return chosen
    nearest = (vectors - vectors.mean(dim=0)).norm(dim=1)
    farthest = int(nearest.argmin())
    nearest = torch.full_like(nearest, torch.inf)
    for _ in range(min(count, len(vectors))):
        chosen.append(farthest)
        nearest = torch.minimum(nearest, (vectors - vectors[farthest]).norm(dim=1))
        nearest[farthest] = -1.0  # equal vectors have no distance, and none is chosen twice
        farthest = int(nearest.argmax())
    return chosen


def rank_wordings(wrong_px: npt.ArrayLike, is_raised: Sequence[bool]) -> list[int]:
    """Rank wordings by their wrong pixels, and thresholds only where they gain beyond chance.

    A high threshold that happens to suit a few images saves paint there and loses it elsewhere. So
    a wording with a raised threshold comes right behind the best one without, unless the mean of
    what it gains per image is above its standard error (the one-standard-error rule of Breiman et
    al., 1984, with paired differences).

    Args:
        wrong_px: (R, I) pixels to paint and to erase: R wordings on the same I images.
        is_raised: of each wording, whether its threshold is above that of the label config.

    Returns:
        Ranks from 1 on; equal wordings share one.

    >>> rank_wordings([[9, 9], [3, 9], [8, 8]], [False, True, False])
    [3, 2, 1]
    >>> rank_wordings([[9, 9], [3, 4], [8, 8]], [False, True, False])
    [3, 1, 2]
    """
    wrong = np.asarray(wrong_px, dtype=np.float64)
    keys = [(float(total), False) for total in wrong.sum(axis=1)]
    plain = [row for row, raised in enumerate(is_raised) if not raised]
    if plain:
        best = min(plain, key=keys.__getitem__)
        for row, raised in enumerate(is_raised):
            if raised and keys[row] < keys[best] and not _gains(wrong[best] - wrong[row]):
                keys[row] = keys[best][0], True
    return [1 + sum(other < key for other in keys) for key in keys]


def _gains(saved_px: npt.NDArray[np.float64]) -> bool:
    """Return whether the mean of a gain per image is above its standard error."""
    count = len(saved_px)
    error = float(saved_px.std(ddof=1)) / count**0.5 if count > 1 else float("inf")
    return float(saved_px.mean()) > error


#: The second label loses narrowly where it has at least this share of the winner's probability.
NARROW: Final = 1 / 3

#: A label is swallowed where another one takes at least this share of its places narrowly.
SWALLOWED_FROM: Final = 0.5

#: Places are too few to say anything below this share of all.
FEWEST: Final = 0.002


@dataclass(frozen=True)
class Swallowed:
    """A label that loses its places to another one.

    Attributes:
        share: of the places that the label would have without the other one, the share that it
            loses to it narrowly, in [0, 1].
    """

    label: str
    by: str
    share: float


@dataclass(frozen=True)
class LabelResponse:
    """How a label answers on all images.

    Attributes:
        share: share of the places that it wins, in [0, 1].
        changed: of the places that it wins, the share that changes to another label when it is
            taken out, in [0, 1]; the rest gets no label. None where it wins none.
        highest: its highest probability in any place, in [0, 1].
    """

    label: str
    share: float
    changed: float | None
    highest: float


class Swallowing:
    """Counts which label wins and which one comes second, over images.

    A place is a patch of a window; no mask is drawn. Thresholds do not count.
    """

    def __init__(self, labels: Iterable[str]) -> None:
        self.labels = tuple(labels)
        count = len(self.labels)
        # Rows: the winner; columns: the second. The last index is that of no label.
        self._pairs: npt.NDArray[np.int64] = np.zeros((count + 1, count + 1), np.int64)
        self._narrow = np.zeros_like(self._pairs)
        self._highest = np.zeros(count)

    def add(self, scores: Scores) -> None:
        """Add an image.

        Raises:
            ValueError: scores of other labels.
        """
        names = tuple(label.name for label in scores.vocabulary.labels)
        if names != self.labels:
            raise ValueError(
                f"Expected argument `scores` to be of the labels {self.labels}, but got {names}."
            )
        logits = scores.cosines.flatten(start_dim=1).float() * scores.temperature
        probabilities = logits.softmax(dim=0).cpu().numpy()
        count = len(self.labels)
        owners = np.asarray(scores.vocabulary.query_labels) % (count + 1)  # -1 becomes the last
        best = np.zeros((count + 1, probabilities.shape[1]), np.float32)
        np.maximum.at(best, owners, probabilities)
        self._highest = np.maximum(self._highest, best[:-1].max(axis=1, initial=0))
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

    def responses(self) -> list[LabelResponse]:
        """Return how each label answers, in the order of the labels."""
        own = self._pairs.sum(axis=1)
        total = max(1, int(own.sum()))
        return [
            LabelResponse(
                name,
                float(own[index] / total),
                float(self._pairs[index, :-1].sum() / own[index]) if own[index] else None,
                float(self._highest[index]),
            )
            for index, name in enumerate(self.labels)
        ]
