"""Find labels that swallow others: places that another label loses to them narrowly."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.scores import Scores

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
        label: name of the label that loses.
        by: name of the label that wins.
        share: of the places that the label would have without the other one, the share that it
            loses to it narrowly, in [0, 1].
    """

    label: str
    by: str
    share: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"label": self.label, "by": self.by, "share": round(self.share, 4)}


@dataclass(frozen=True)
class LabelResponse:
    """How a label answers on all images.

    Attributes:
        label: its name.
        share: share of the places that it wins, in [0, 1].
        changed: of the places that it wins, the share that changes to another label when it is
            taken out, in [0, 1]; the rest gets no label. None where it wins none.
        highest: its highest probability in any place, in [0, 1].
    """

    label: str
    share: float
    changed: float | None
    highest: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        changed = None if self.changed is None else round(self.changed, 4)
        shares = {"share": round(self.share, 6), "changed": changed}
        return {"label": self.label, **shares, "highest": round(self.highest, 4)}


class Swallowing:
    """Counts which label wins and which one comes second, over images.

    A place is a patch of a window; no mask is drawn. Thresholds do not count.

    Args:
        labels: names of the labels.
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
